--- Weights under public names: to and from the names that modules have here, by the tables of io/names/.
---
--- A model says its own as `public_names`: a table of names, or the name of one of those.
local conversions = require "perigee.io.conversions"
local core = require "perigee.core.ffi"
local kinds = require "perigee.io.weights_kind"
local layout = require "perigee.core.layout"
local ops = require "perigee.core.ops"
local room = require "perigee.core.room"
local safetensors = require "perigee.io.safetensors"
local tensor = require "perigee.core.tensor"
local translation = require "perigee.io.translation"
local weights_file = require "perigee.io.weights_file"

local M = {}

---@alias perigee.PublicNames string|table  of lua/perigee/io/names/

local table_of = translation.table_of

--- A public name for one of ours ("blocks.1.attention.qkv.weight" -> "blocks.0.attn.qkv.weight"), or nil; a list of
--- names where it is several tensors.
---@param names perigee.PublicNames
function M.public_name(names, ours) return translation.outward(table_of(names), ours) end

--- The other way.
function M.own_name(names, theirs) return translation.inward(table_of(names), theirs) end

--- The shape that public checkpoints give a parameter: a convolution's, where ours is a matrix.
local function public_shape(t, name, known)
  local shape = rawget(t, "public_shape") or t.shape
  for _, pattern in ipairs(known.pointwise or {}) do
    if name:find(pattern) then return { shape[1], shape[2], 1, 1 } end
  end
  return shape
end

--- Without its leading dimensions of 1.
local function without_ones(shape)
  local first = 1
  while shape[first] == 1 and shape[first + 1] do first = first + 1 end
  return { unpack(shape, first) }
end

--- A name with "#" for its positions, as tables of names write them.
local function numbered(name) return (name:gsub("%.%d+%.", ".#.")) end

--- The model whose names are meant: the group's member that `strip` begins with, or the model itself.
local function subject(model, strip) return strip and model[strip:match "^[%w_]+"] or model end

--- A model's parameters as public checkpoints have them: a list of { name, shape, parameter, own_name }; `names`, where
--- it is several tensors there, and `conversion`, where its values are others. A parameter that the table doesn't know
--- is an error, which names `file` where that is to be read. `strip` is the beginning of our names that goes first, as
--- "student.".
---@param file? perigee.WeightsFile
function M.public_parameters(model, names, strip, file)
  local list, known = {}, table_of(names)
  for k, entry in ipairs(model:named_parameters()) do
    local name = entry.name
    if strip and name:sub(1, #strip) == strip then name = name:sub(#strip + 1) end
    local public = translation.outward(known, name)
    if not public and file and known.what then
      core.fail("%s: it is %s; the model's %s has no name there", file.path, known.what, entry.name)
    elseif not public then
      local whose = type(names) == "table" and "the model's public_names" or names
      core.fail("'%s' has no name among those of %s", entry.name, whose)
    end
    local conversion = known.convert and conversions[known.convert[name] or known.convert[numbered(name)]]
    local shape = public_shape(entry.tensor, name, known)
    if known.flat and known.flat[name] then shape = without_ones(shape) end
    if conversion then shape = conversion.shape(shape, model) end
    list[k] = { name = type(public) == "table" and public[1] or public, shape = shape, parameter = entry.tensor,
      own_name = entry.name, names = type(public) == "table" and public or nil, conversion = conversion }
  end
  return list
end

-- ---- loading -------------------------------------------------------------------------------------------------

--- Opens a file of weights of any kind (io/weights_file.lua).
M.open = weights_file.open

--- What a file is, for models of a family, and which part of it is taken.
M.kind = kinds.expect

--- What a file is, of whichever family, or why it is not known (io/weights_kind.lua).
M.recognise, M.sentence = kinds.recognise, kinds.sentence

--- An error unless a tensor of the file equals a materialised buffer to 1e-4.
local function check_fixed(file, name, buffer)
  local found = file:info(name)
  if not layout.same_shape(found.shape, buffer.shape) then
    core.fail("%s: tensor '%s' is %s; the model's, which is fixed, is %s", file.path, name,
      core.shape_text(found.shape), core.shape_text(buffer.shape))
  end
  tensor.tidy(function()
    local theirs, count = tensor.to_host(file:read(name):to "float32")
    local ours = tensor.to_host(buffer:to "float32")
    local bound = buffer.dtype == "bfloat16" and 1e-2 or 1e-4
    for k = 0, count - 1 do
      local difference = math.abs(theirs[k] - ours[k])
      if difference > bound or difference ~= difference then
        core.fail("%s: tensor '%s' has %g at place %d, where the model has the fixed number %g", file.path, name,
          theirs[k], k + 1, ours[k])
      end
    end
  end)
end

--- Where a wanted tensor lies in the file: the names of its parts, false for one that the file lacks, and their shape.
local function parts_of(file, entry, prefix, known)
  local names, shape = {}, entry.shape
  for k, public in ipairs(entry.names or { entry.name }) do
    local misspelt = public and known.aliases and known.aliases[public]
    names[k] = public and prefix .. (misspelt and not file.entries[prefix .. public] and misspelt or public)
  end
  if entry.names then shape = { shape[1] / #names, unpack(shape, 2) } end
  return names, shape
end

--- Every tensor that is missing, has another shape, or belongs to nothing in the model.
local function check(file, wanted, prefix, expected, known, ignored)
  for _, entry in ipairs(wanted) do
    local names, shape = parts_of(file, entry, prefix, known)
    for _, name in ipairs(names) do
      local found = file.entries[name]
      if name then expected[name] = true end
      if name and not found then
        core.fail("%s: tensor '%s' is missing; the model's %s needs it, %s", file.path, name, entry.own_name,
          core.shape_text(shape))
      end
      if name and not layout.same_shape(found.shape, shape) then
        core.fail("%s: tensor '%s' is %s; the model's %s needs %s", file.path, name, core.shape_text(found.shape),
          entry.own_name, core.shape_text(shape))
      end
    end
  end
  for _, name in ipairs(file.names) do
    local begins = name:sub(1, #prefix) == prefix
    if begins and not expected[name] and not translation.is_ignored(name:sub(#prefix + 1), ignored) then
      core.fail("%s: tensor '%s' %s belongs to nothing in the model", file.path, name,
        core.shape_text(file.entries[name].shape))
    end
  end
end

--- A wanted tensor as the model has it.
local function read(file, entry, prefix, known, model)
  local names, shape = parts_of(file, entry, prefix, known)
  local parts, like = {}, nil
  for k, name in ipairs(names) do
    parts[k] = name and file:read(name) or false
    like = like or parts[k]
  end
  for k, part in ipairs(parts) do parts[k] = part or tensor.empty(shape, like.dtype):fill_(0) end
  local t = parts[2] and ops.concat(parts, 1) or parts[1]
  if entry.conversion then t = entry.conversion.inward(t, model) end
  return t:reshape(entry.parameter.shape)
end

---@class perigee.WeightsOptions
---@field names? "auto"|perigee.PublicNames  auto: the model's own, or found out from the file
---@field prefix? string     the beginning of every name in the file, as "ema."
---@field strip? string      the beginning of our names that the file's lack, as "student."
---@field ignore? string[]   beginnings of further names that may be in the file without use

--- Fills a materialised model from a file of public names. Missing, unexpected and wrong-shaped tensors are errors.
---@param file string|perigee.WeightsFile
---@param options? perigee.WeightsOptions
function M.load(file, model, options)
  options = options or {}
  if type(file) == "string" then file = M.open(file) end
  local prefix = options.prefix or ""
  local names = options.names or "auto"
  if names == "auto" then names = model.public_names or kinds.expect(file, model.class_name).names end
  local wanted = M.public_parameters(model, names, options.strip, file)
  local known, expected, whole = table_of(names), {}, subject(model, options.strip)
  for name, field in pairs(known.fixed or {}) do
    local buffer = whole[field]
    if buffer and rawget(buffer, "role") == "buffer" and file.entries[prefix .. name] then
      expected[prefix .. name] = true
      check_fixed(file, prefix .. name, buffer)
    end
  end
  check(file, wanted, prefix, expected, known, { known.ignored, options.ignore or {} })
  for _, entry in ipairs(wanted) do
    tensor.tidy(function() entry.parameter:copy_(read(file, entry, prefix, known, whole)) end)
  end
  return model
end

-- ---- saving --------------------------------------------------------------------------------------------------

--- A model's parameters under public names and shapes, as views where nothing is converted, and its fixed tensors that
--- have such names.
---@param names perigee.PublicNames
---@return table<string, perigee.Tensor>
function M.export(model, names, strip)
  local tensors, whole = {}, subject(model, strip)
  for _, entry in ipairs(M.public_parameters(model, names, strip)) do
    local t = entry.parameter
    if entry.conversion then t = entry.conversion.outward(t:to "cpu", whole) end
    t = t:reshape(entry.shape)
    for k, name in ipairs(entry.names or { entry.name }) do
      local rows = entry.names and t.shape[1] / #entry.names
      if name then tensors[name] = rows and t:narrow(1, (k - 1) * rows + 1, rows) or t end
    end
  end
  for name, field in pairs(table_of(names).fixed or {}) do tensors[name] = tensors[name] or whole[field] end
  return tensors
end

--- Saves a model under public names.
---@param options { names: perigee.PublicNames, strip?: string, metadata?: table<string, string> }
function M.save(path, model, options)
  if not (options and options.names) then
    core.fail("%s: option 'names' is missing; expected one of %s", path,
      table.concat(room.names "perigee.io.names", ", "))
  end
  safetensors.save(path, M.export(model, options.names, options.strip), options.metadata)
end

return M
