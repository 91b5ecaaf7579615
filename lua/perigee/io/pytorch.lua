--- PyTorch's files (.pt, .pth): a zip archive of a pickle and the storages' bytes, the older form of pickles one after
--- another, and TorchScript archives, of which the parameters and constants are read. Nothing in them is executed.
--- Tensors are read where their bytes lie; what they are views of is checked against the file first.
---
--- A file looks like one of safetensors (io/safetensors.lua): `names`, `entries`, `info`, `read`. Names are the keys on
--- the way to a tensor, "ema.blocks.0.attn.qkv.weight"; `value` is all that the pickle holds (io/pickle.lua).
local core = require "perigee.core.ffi"
local elements = require "perigee.io.elements"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local pickle = require "perigee.io.pickle"
local recognise = require "perigee.io.recognise"
local zip = require "perigee.io.zip"

local M = {}

local MAX_PICKLE = 2 ^ 24  -- bytes
local MAX_DIMS = 8
local MAX_DEPTH = 64       -- of dicts in dicts
local MAX_VALUES = 100000  -- tensors, dicts and lists

---@class perigee.PytorchFile
---@field path string
---@field kind "zip"|"legacy"|"torchscript"
---@field value any                  all that the pickle holds; tensors are { shape, stored, ... }
---@field names string[]             of tensors, in the pickle's order
---@field entries table<string, perigee.SafetensorsEntry>
---@field metadata table<string, string>
local File = {}
File.__index = File

local Tensor = {} -- a tensor of the pickle: storage, stored, shape, strides, first
local Storage = {}

function M.is_tensor(x) return getmetatable(x) == Tensor end

local function refuse(path, format, ...)
  core.fail("%s: a PyTorch file that cannot be read: %s", path, format:format(...))
end

-- ---- the globals -------------------------------------------------------------------------------------------------

local storage_types = {
  Double = "F64", Float = "F32", Half = "F16", BFloat16 = "BF16", Long = "I64", Int = "I32", Short = "I16", Char = "I8",
  Byte = "U8", Bool = "BOOL", ComplexFloat = "C64",
}
local dtypes = {
  float64 = "F64", float32 = "F32", float16 = "F16", bfloat16 = "BF16", int64 = "I64", int32 = "I32", int16 = "I16",
  int8 = "I8", uint8 = "U8", uint16 = "U16", uint32 = "U32", uint64 = "U64", bool = "BOOL", complex64 = "C64",
  float8_e4m3fn = "F8_E4M3", float8_e5m2 = "F8_E5M2", float8_e4m3fnuz = "F8_E4M3FNUZ", float8_e5m2fnuz = "F8_E5M2FNUZ",
  float8_e8m0fnu = "F8_E8M0",
}

--- A dtype of PyTorch's.
local Dtype = { __tostring = function(d) return "torch." .. d.name end }

local function is_count(x) return type(x) == "number" and x >= 0 and x % 1 == 0 and x <= 2 ^ 53 end

--- A list of sizes, as a table.
local function counts(path, list)
  if not pickle.is_list(list) or list.n > MAX_DIMS then
    refuse(path, "a tensor's sizes are no list of at most %d", MAX_DIMS)
  end
  local out = {}
  for k = 1, list.n do
    if not is_count(list[k]) then refuse(path, "a tensor's size or stride is %s", tostring(list[k])) end
    out[k] = list[k]
  end
  return out
end

--- A view of a storage; every element must lie inside it.
local function view(path, storage, stored, arguments)
  if getmetatable(storage) ~= Storage then refuse(path, "a tensor without a storage") end
  local first, shape, strides = arguments[2], counts(path, arguments[3]), counts(path, arguments[4])
  if not is_count(first) or #shape ~= #strides then refuse(path, "a tensor without an offset, sizes and strides") end
  local format = elements.formats[stored]
  local numel, last = 1, first
  for d, n in ipairs(shape) do
    numel, last = numel * n, last + (n - 1) * strides[d]
    if numel > 2 ^ 50 then refuse(path, "a tensor of the absurd shape %s", core.shape_text(shape)) end
  end
  if numel > 0 and (last + 1) * format.bytes > storage.bytes then
    refuse(path, "a tensor %s of %s reaches to byte %.0f of a storage of %.0f", core.shape_text(shape), stored,
      (last + 1) * format.bytes, storage.bytes)
  end
  return setmetatable({ storage = storage, stored = stored, shape = shape, strides = strides, first = first,
    numel = numel, span = numel > 0 and last - first + 1 or 0 }, Tensor)
end

--- The globals that files may name, for one file.
local function globals_of(path)
  local function first(arguments) return arguments[1] end
  local function old_view(arguments)
    local storage = arguments[1]
    return view(path, storage, type(storage) == "table" and storage.stored or refuse(path, "no storage"), arguments)
  end
  local function typed_view(arguments)
    local dtype = arguments[7]
    if getmetatable(dtype) ~= Dtype then refuse(path, "a tensor without a dtype") end
    return view(path, arguments[1], dtype.stored, arguments)
  end
  local function parameter(arguments)
    return M.is_tensor(arguments[1]) and arguments[1] or refuse(path, "a parameter that is not a tensor")
  end
  local function ordered() return pickle.dict "OrderedDict" end
  local globals = {
    ["torch._utils._rebuild_tensor"] = { call = old_view },
    ["torch._utils._rebuild_tensor_v2"] = { call = old_view },
    ["torch._utils._rebuild_tensor_v3"] = { call = typed_view },
    ["torch._utils._rebuild_parameter"] = { call = parameter },
    ["torch.Size"] = { call = first },
    ["torch.device"] = { call = first },
    ["collections.OrderedDict"] = { call = function(arguments)
      local dict = ordered()
      local pairs_of = arguments[1]
      for k = 1, pickle.is_list(pairs_of) and pairs_of.n or 0 do
        local pair = pairs_of[k]
        if not pickle.is_list(pair) or pair.n ~= 2 or type(pair[1]) ~= "string" then
          refuse(path, "an OrderedDict of what are no pairs")
        end
        dict:set(pair[1], pair[2])
      end
      return dict
    end, new = ordered },
    ["argparse.Namespace"] = { new = function() return pickle.dict "argparse.Namespace" end },
    ["_codecs.encode"] = { call = first }, -- bytes, of which protocol 2 knows none
    ["torch.storage.UntypedStorage"] = { value = { storage = "U8" } },
    ["torch.UntypedStorage"] = { value = { storage = "U8" } },
  }
  for name, stored in pairs(storage_types) do
    globals[("torch.%sStorage"):format(name)] = { value = { storage = stored } }
  end
  for name, stored in pairs(dtypes) do
    globals["torch." .. name] = { value = setmetatable({ name = name, stored = stored }, Dtype) }
  end
  return globals
end

--- Globals of TorchScript: its classes hold their attributes, and lists are lists.
local function torchscript_global(name)
  if name:sub(1, 10) == "__torch__." then return { new = function() return pickle.dict(name) end } end
  local known = name:match "^torch%.jit%._pickle%.([%w_]+)$"
  if known == "restore_type_tag" or known and known:match "^build_%a+list$" then
    return { call = function(arguments) return arguments[1] end }
  end
end

--- What persistent ids stand for: storages, one for each key.
local function storages_of(path, storages)
  return function(id)
    if not pickle.is_list(id) or id[1] ~= "storage" then
      refuse(path, "it refers to something that is not a storage")
    end
    local stored, key, count = type(id[2]) == "table" and id[2].storage, id[3], id[5]
    if not stored or type(key) ~= "string" or not is_count(count) then
      refuse(path, "a storage without type, key and size")
    end
    if id[6] ~= nil and id[6] ~= pickle.none then
      refuse(path, "storages that are views, of PyTorch before 0.4; save it again with a newer PyTorch")
    end
    local bytes, known = count * elements.formats[stored].bytes, storages[key]
    if known and (known.stored ~= stored or known.bytes ~= bytes) then
      refuse(path, "storage '%s' has two sizes", key)
    end
    storages[key] = known or setmetatable({ key = key, stored = stored, bytes = bytes }, Storage)
    return storages[key]
  end
end

-- ---- from values to entries ---------------------------------------------------------------------------------------

local function entry_of(t)
  local format = elements.formats[t.stored]
  local packed = t.numel == 0 or layout.is_contiguous(t)
  return {
    dtype = format.dtype or t.stored, stored = t.stored, shape = t.shape, bytes = t.numel * format.bytes,
    offset = t.storage.offset + t.first * format.bytes, strides = not packed and t.strides or nil,
    span = not packed and t.span or nil,
  }
end

--- Names of the tensors in a value, the keys on the way to them joined by dots.
local function collect(file, value)
  local visits = 0
  local function walk(x, name, depth)
    if type(x) ~= "table" then return end
    visits = visits + 1
    if visits > MAX_VALUES then refuse(file.path, "more than %d tensors, dicts and lists", MAX_VALUES) end
    if M.is_tensor(x) then
      name = name == "" and "tensor" or name
      if file.entries[name] then refuse(file.path, "the name '%s' comes twice", name) end
      file.names[#file.names + 1], file.entries[name] = name, entry_of(x)
    elseif pickle.is_list(x) or pickle.is_dict(x) then
      if depth > MAX_DEPTH then refuse(file.path, "values nested more than %d deep, or in themselves", MAX_DEPTH) end
      local head = name == "" and "" or name .. "."
      if pickle.is_dict(x) then
        for _, key in ipairs(x.keys) do walk(x.values[key], head .. tostring(key), depth + 1) end
      else
        for k = 1, x.n do walk(x[k], head .. k - 1, depth + 1) end
      end
    end
  end
  walk(value, "", 1)
  return file
end

-- ---- the forms ----------------------------------------------------------------------------------------------------

local function new_file(path, kind)
  return setmetatable({ path = path, kind = kind, names = {}, entries = {}, metadata = {} }, File)
end

local function open_zip(path)
  local archive = zip.open(path)
  local head
  for _, name in ipairs(archive.names) do
    local found = name:match "^([^/]+/)data%.pkl$" or name == "data.pkl" and ""
    if found and head then refuse(path, "two data.pkl") end
    head = head or found
  end
  if not head then
    refuse(path, "a zip archive without data.pkl; %s", recognise.sentence(path) or "it is of another kind")
  end
  local function text_of(name) return archive.entries[head .. name] and archive:read(head .. name, 64) end
  local order = text_of "byteorder"
  if order and order ~= "little" then
    refuse(path, "its numbers are %s-endian; save it again on an x86-64 or ARM machine", order:gsub("%c", "?"))
  end
  local scripted = archive.entries[head .. "constants.pkl"] ~= nil
  local file, storages = new_file(path, scripted and "torchscript" or "zip"), {}
  local value = pickle.read(archive:read(head .. "data.pkl", MAX_PICKLE), {
    path = path, globals = globals_of(path), find = scripted and torchscript_global or nil,
    persistent = storages_of(path, storages),
  })
  for key, storage in pairs(storages) do
    local offset, bytes = archive:place(head .. "data/" .. key)
    if bytes ~= storage.bytes then
      refuse(path, "storage '%s' has %.0f bytes in the archive, %.0f in the pickle", key, bytes, storage.bytes)
    end
    storage.offset = offset
  end
  file.value = value
  return collect(file, value)
end

local MAGIC = "\128\2\138\10l\252\156F\249 j\168P\25." -- the number with which the older form begins

--- The storages' places: a count of elements in eight bytes, then the elements, in the order of the keys.
local function place_storages(path, keys, storages, at, size)
  if not pickle.is_list(keys) then refuse(path, "no list of storages") end
  for k = 1, keys.n do
    local storage = storages[keys[k]] or refuse(path, "a storage that no tensor names")
    if at + 8 > size or storage.bytes > size - at - 8 then
      refuse(path, "its storages need more than its %.0f bytes; the download or copy did not finish", size)
    end
    local text, count = files.read(path, at, 8), 0
    for digit = 8, 1, -1 do count = count * 256 + text:byte(digit) end
    if count * elements.formats[storage.stored].bytes ~= storage.bytes then
      refuse(path, "storage '%s' has two sizes", storage.key)
    end
    storage.offset, at = at + 8, at + 8 + storage.bytes
  end
  for key, storage in pairs(storages) do
    if not storage.offset then refuse(path, "storage '%s' is missing", key) end
  end
end

local function open_legacy(path)
  local size = files.size(path)
  local text = files.read(path, 0, math.min(size, MAX_PICKLE))
  local storages, at = {}, #MAGIC + 1
  local function next_pickle(options)
    options.path, options.at = path, at
    local value
    value, at = pickle.read(text, options)
    return value
  end
  local version, system = next_pickle {}, next_pickle {}
  if version ~= 1001 then refuse(path, "version %s; 1001 is known", tostring(version)) end
  if not pickle.is_dict(system) or system:get "little_endian" ~= true then
    refuse(path, "its numbers are big-endian; save it again on an x86-64 or ARM machine")
  end
  local file = new_file(path, "legacy")
  file.value = next_pickle { globals = globals_of(path), persistent = storages_of(path, storages) }
  place_storages(path, next_pickle {}, storages, at - 1, size)
  return collect(file, file.value)
end

--- Does a file begin as PyTorch's do: a zip archive, or the older form?
---@return boolean
function M.begins(path)
  local text = files.read(path, 0, math.min(files.size(path), #MAGIC))
  return text == MAGIC or text:sub(1, 4) == "PK\3\4"
end

--- Opens a file: all but the tensors' bytes is read and checked.
---@param path string
---@return perigee.PytorchFile
function M.open(path)
  local text = files.read(path, 0, math.min(files.size(path), #MAGIC))
  if text:sub(1, 4) == "PK\3\4" then return open_zip(path) end
  if text == MAGIC then return open_legacy(path) end
  if text:sub(1, 1) == "\128" then
    refuse(path, "a pickle that torch.save did not write; save its tensors with torch.save or safetensors")
  end
  refuse(path, "%s", recognise.sentence(path) or "it begins neither as a zip archive nor as PyTorch's older form")
end

---@return perigee.SafetensorsEntry
function File:info(name)
  local entry = self.entries[name]
  if not entry then core.fail("%s: it has no tensor '%s'", self.path, name) end
  return entry
end

--- Reads one tensor, into a given contiguous tensor of its shape and dtype if there is one. A tensor that repeats its
--- elements (expand) is read if it is no larger than the file.
---@param name string
---@param into? perigee.Tensor
---@return perigee.Tensor
function File:read(name, into)
  local entry = self:info(name)
  if entry.bytes > files.size(self.path) then
    core.fail("%s: tensor '%s' %s repeats elements and is larger than the file; save its contiguous()", self.path, name,
      core.shape_text(entry.shape))
  end
  return elements.read_entry(self, name, entry, into)
end

--- All tensors of a file, by name, and what else it holds.
---@return table<string, perigee.Tensor> tensors
---@return any value
function M.load(path)
  local file, tensors = M.open(path), {}
  for _, name in ipairs(file.names) do tensors[name] = file:read(name) end
  return tensors, file.value
end

--- Writes a table of tensors by name, nested perhaps (io/pytorch_save.lua).
---@param path string
---@param value table
function M.save(path, value) return require("perigee.io.pytorch_save").save(path, value) end

return M
