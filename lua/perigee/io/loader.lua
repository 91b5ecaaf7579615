--- Batches, made ahead by the runtime's threads (runtime/loader.c). A batch depends on the seed and the step
--- alone, not on threads, restarts or ranks.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check
local M = {}

---@class perigee.Field
---@field name string
---@field dtype string
---@field shape integer[]   of one sample

--- Where a field's samples come from: one of `tensor`, `path`, `folder`. A `path` with a `stride` is mapped, and each
--- of its records checked when it is first read.
---@class perigee.Source
---@field tensor? perigee.Tensor  [count, ...]
---@field path? string            a file of records, the first at byte `offset`
---@field offset? integer
---@field stride? integer         bytes from one record to the next
---@field mirrored? integer       bytes from a record to that of its mirror image
---@field seed? integer           the seed of the records' checksums (pg_record_crc32)
---@field folder? string          a folder with one file a sample
---@field archives? string[]      or archives, of which the files are members,
---@field places? ffi.cdata*      and where they lie: pg_place [count]
---@field names? string[]         their names; of members in archives that have none, it may be missing
---@field header? string          the bytes that each of them begins with; without: they are pictures
---@field resize? boolean|"crop"  pictures of another size are scaled and cropped; "crop": as ADM does
---@field mirrored_folder? string     where the files of mirror images lie, under the same names,
---@field mirrored_places? ffi.cdata* or, in archives, where
---@field augment? boolean        flip and crop this field

---@class perigee.Loader
---@field step integer  of the batch that next() gave last; -1 before
local Loader = {}
Loader.__index = Loader

local pointer = ffi.new "pg_loader *[1]"

local function add_field(handle, field, source, count)
  local augment, shape = source.augment and 1 or 0, tensor.int64_array(field.shape)
  if source.tensor then return C.pg_loader_add_tensor(handle, tensor.handle(source.tensor), augment) end
  local dtype = core.dtype_code[field.dtype]
  if source.stride then
    return C.pg_loader_add_mapped(handle, source.path, source.offset, source.stride, source.mirrored,
      source.seed, dtype, #field.shape, shape)
  elseif source.path then
    return C.pg_loader_add_file(handle, source.path, source.offset, dtype, #field.shape, shape, augment)
  end
  local names = source.names and table.concat(source.names, "\0") .. "\0" or ("\0"):rep(count)
  local folder = source.folder or ""
  if source.header then
    return C.pg_loader_add_files(handle, folder, names, #names, source.header, #source.header, dtype, #field.shape,
      shape)
  end
  local resize = source.resize == "crop" and C.PG_RESIZE_CROP or source.resize and C.PG_RESIZE_FIT or C.PG_RESIZE_NONE
  return C.pg_loader_add_pictures(handle, folder, names, #names, field.shape[1], field.shape[2], resize, augment)
end

--- What field `number`, from 0, has more: archives, mirror images.
local function complete_field(handle, number, source)
  if source.archives then
    local names = table.concat(source.archives, "\0") .. "\0"
    check(C.pg_loader_archives(handle, number, names, #names, #source.archives, source.places))
  end
  if source.mirrored_folder or source.mirrored_places then
    check(C.pg_loader_mirrored(handle, number, source.mirrored_folder, source.mirrored_places))
  end
end

---@class perigee.LoaderOptions
---@field count integer      samples in the data set
---@field batch integer
---@field fields perigee.Field[]
---@field sources table<string, perigee.Source>
---@field seed? integer      default 0
---@field shuffle? boolean   default true
---@field flip? boolean|"always"  mirror augmented fields with probability 1/2
---@field crop? integer      shift augmented fields by up to so many pixels
---@field threads? integer   default 1; 0: batches are made in next()
---@field depth? integer     batches made ahead, default 3
---@field first? integer     of a step that several loaders share: this one's first sample in it, from 0
---@field stride? integer    and the whole step's samples
---@field classes? integer    the field `labels` is from 0 to classes − 1
---@field name? string        of the data set, for errors
---@field device? string     where the batches' tensors lie

---@param o perigee.LoaderOptions
---@return perigee.Loader
function M.new(o)
  local options = ffi.new("pg_loader_options", {
    count = o.count, batch = o.batch, stride = o.stride or o.batch, first = o.first or 0, seed = o.seed or 0,
    shuffle = o.shuffle == false and 0 or 1, flip = o.flip == "always" and C.PG_FLIP_ALWAYS or o.flip and 1 or 0,
    crop_padding = o.crop or 0,
    threads = o.threads or 1, depth = o.depth or 3,
  })
  check(C.pg_loader_new(pointer, options))
  local self = setmetatable({ handle = ffi.gc(pointer[0], C.pg_loader_free), step = -1, fields = o.fields }, Loader)
  self.targets, self.wanted, self.batch = ffi.new("pg_tensor *[?]", #o.fields), {}, {}
  for k, field in ipairs(o.fields) do
    check(add_field(self.handle, field, o.sources[field.name], o.count))
    complete_field(self.handle, k - 1, o.sources[field.name])
    if field.name == "labels" and o.classes then
      check(C.pg_loader_below(self.handle, k - 1, o.classes, (o.name or "loader") .. ": label"))
    end
    local shape, place = { o.batch, unpack(field.shape) }, { device = o.device, purpose = "data" }
    self.batch[field.name], self.wanted[k] = tensor.outlive(tensor.empty, shape, field.dtype, place), true
  end
  self.sample_numbers = tensor.outlive(tensor.empty, { o.batch }, "int64", { purpose = "data" })
  return self
end

local function open_handle(self)
  if not self.handle then core.fail "loader: it was closed" end
  return self.handle
end

--- The next batch will be that of `step`, from 0.
function Loader:seek(step) check(C.pg_loader_seek(open_handle(self), step)) end

--- A field that is not wanted is not read; its tensor keeps its last content.
---@param name string
---@param wanted boolean
function Loader:want(name, wanted)
  for k, field in ipairs(self.fields) do
    if field.name == name then
      if self.wanted[k] ~= wanted then check(C.pg_loader_want(open_handle(self), k - 1, wanted and 1 or 0)) end
      self.wanted[k] = wanted
      return
    end
  end
  core.fail("loader: the data set has no field '%s'", name)
end

local step = ffi.new "int64_t[1]"

--- The next batch: one tensor a field, by name. The next call overwrites them.
---@return table<string, perigee.Tensor>
function Loader:next()
  local handle = open_handle(self)
  for k, field in ipairs(self.fields) do
    self.targets[k - 1] = self.wanted[k] and tensor.handle(self.batch[field.name]) or nil
  end
  local numbers = tensor.handle(self.sample_numbers)
  check(C.pg_loader_next(handle, #self.fields, self.targets, numbers, step))
  self.step = tonumber(step[0])
  return self.batch
end

--- The numbers in the data set, from 0, of the samples that next() gave last: int64 [batch].
function Loader:indices() return self.sample_numbers end

--- Ends the threads and gives the memory back, that of the batch too.
function Loader:close()
  if not self.handle then return end
  C.pg_loader_free(ffi.gc(self.handle, nil))
  self.handle = nil
  for _, t in pairs(self.batch) do t:free() end
  self.sample_numbers:free()
end

return M
