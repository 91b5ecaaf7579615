--- The base of every data set, and pg.data.dataset for your own. A data set knows its classes and shapes without its
--- files, so that a recipe whose data is not there loads and plans; :open() finds the files or says what is missing.
local ffi = require "ffi"
local lfs = require "lfs"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local loader = require "perigee.io.loader"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local C = core.C

---@class perigee.Dataset
---@field name string
---@field classes? integer     where it has labels
---@field channels integer     of what the student sees
---@field height integer
---@field width integer
---@field batch integer
---@field count integer?       samples, once open
---@field class_names string[]? once open, where they are known
---@field left_out string[]?   once open, where `find` sets it: files and folders that it did not take, as a person
---  would look for them
---@field image_size integer?  side of the pixels in the field `images`, for the teacher
local Dataset = {}
Dataset.__index = Dataset

local M = {}

local RESERVED = { state = true, hyper = true, time = true, noise = true } -- other inputs of a step's program

---@class perigee.DatasetOptions
---@field batch integer
---@field flip? boolean      mirror pictures with probability 1/2
---@field crop? integer      shift pictures by up to so many pixels each way, zeros moving in
---@field shuffle? boolean   default true: a permutation of its own for each epoch
---@field threads? integer   that make batches; default 1, for files half the processor's
---@field depth? integer     batches made ahead, default 3

--- Options that every data set takes, for check.options.
function M.spec(own)
  return tables.merged({
    batch = "count", flip = { "boolean", false }, crop = { "natural", 0 }, shuffle = { "boolean", true },
    threads = { "integer" }, depth = { "integer", 3 },
  }, own)
end

--- int64 labels of a tensor of small integers of any dtype, or of a list; an error unless each is in 0 ... classes − 1.
---@param what string  what to call them in an error
---@return perigee.Tensor
function M.labels(what, given, classes)
  local array, n
  if tensor.is_tensor(given) then
    if #given.shape ~= 1 then core.fail("%s: labels are [n], not %s", what, core.shape_text(given.shape)) end
    array, n = tensor.to_host(given)
  else
    array, n = ffi.new("int64_t[?]", math.max(#given, 1)), #given
    for k, label in ipairs(given) do array[k - 1] = label end
  end
  local numbers = ffi.new("int64_t[?]", math.max(n, 1))
  for k = 0, n - 1 do
    local label = tonumber(array[k])
    if label % 1 ~= 0 or label < 0 or label >= classes then
      core.fail("%s: label %g of sample %d; with %d classes they are 0 to %d", what, label, k, classes, classes - 1)
    end
    numbers[k] = label
  end
  return tensor.tensor(numbers, { n }, "int64")
end

--- The fields of a set of pictures: pixels as they are stored, and labels.
function M.image_fields(height, width, channels)
  return {
    { name = "images", dtype = "uint8", shape = { height, width, channels } },
    { name = "labels", dtype = "int64", shape = {} },
  }
end

--- A data set. `find(self)` returns the number of samples and a source (perigee.Source) for each field by name; it is
--- called once, at the first open.
---@class perigee.NewDataset : perigee.DatasetOptions
---@field name string
---@field classes? integer           where it has labels
---@field channels integer
---@field height integer
---@field width integer
---@field find fun(self: perigee.Dataset): integer, table<string, perigee.Source>
---@field fields? perigee.Field[]   default: images uint8 [H,W,C] and labels
---@field image_size? integer
---@field class_names? string[]
---@field latents? function         (self, batch, state, dtype) -> value: what a student sees of the field `latents`
---@field unscale? function         (self, z) -> value: latents as an autoencoder has them, of what a student sees,
---  where the autoencoder's own scale and shift do not say that
---@field pixels? function          (self, batch, dtype) -> value: the teacher's pixels [B,3,H,W] in [0, 1],
---  where `images` isn't that

---@class perigee.data
---@field dataset fun(options: perigee.NewDataset): perigee.Dataset

---@param given perigee.NewDataset
---@return perigee.Dataset
function M.new(given)
  local self = check.options("data set", given, M.spec {
    name = "string", classes = { "integer" }, channels = "integer", height = "integer", width = "integer",
    fields = { "table" }, find = "function", image_size = { "integer" }, latents = { "function" },
    pixels = { "function" }, unscale = { "function" }, class_names = { "table" },
  })
  for _, key in ipairs { "classes", "channels", "height", "width", "batch" } do
    if (self[key] or 1) < 1 then core.fail("data set '%s': %s = %d", self.name, key, self[key]) end
  end
  self.field_list = self.fields or M.image_fields(self.height, self.width, self.channels)
  for _, field in ipairs(self.field_list) do
    if field.name == "labels" and not self.classes then
      core.fail("data set '%s': option 'classes' is missing: how many classes its labels are of", self.name)
    elseif RESERVED[field.name] or not field.name:match "^[%a_][%w_]*$" then
      core.fail("data set '%s': a field is named '%s'; names are letters, digits and _, and not %s", self.name,
        field.name, table.concat(tables.sorted_keys(RESERVED), ", "))
    end
  end
  self.fields = nil
  return setmetatable(self, Dataset)
end

--- Names, dtypes and shapes of what a batch holds.
---@return perigee.Field[]
function Dataset:fields() return self.field_list end

--- An error unless a source in memory is what its field says; the labels are checked against the classes.
local function check_source(self, field, source, count)
  if not source then core.fail("data set '%s': no source for its field '%s'", self.name, field.name) end
  local t = source.tensor
  if not t then return end
  local shape = { count, unpack(field.shape) }
  if t.dtype ~= field.dtype or not layout.same_shape(t.shape, shape) then
    core.fail("data set '%s': its field '%s' is %s %s; expected %s %s", self.name, field.name, t.dtype,
      core.shape_text(t.shape), field.dtype, core.shape_text(shape))
  end
  if field.name == "labels" then tensor.tidy(M.labels, ("data set '%s'"):format(self.name), t, self.classes) end
end

--- Finds the files. Calling it again does nothing.
---@return perigee.Dataset
function Dataset:open()
  if not self.sources then
    local count, sources = tensor.outlive(self.find, self)
    if count < 1 then core.fail("data set '%s': it is empty", self.name) end
    for _, field in ipairs(self.field_list) do
      check_source(self, field, sources[field.name], count)
    end
    self.count, self.sources = count, sources
  end
  return self
end

local function default_threads(sources)
  for _, source in pairs(sources) do
    if source.folder or source.archives then return math.max(1, math.min(8, math.floor(C.pg_threads() / 2))) end
  end
  return 1
end

--- Batches in the order that the seed gives. `batch`, `threads`, `depth`, `shuffle`, `flip` and `crop` stand in for the
--- data set's own; ranks that share a step give their `first` sample in it and the whole step's `stride`. `more` is
--- { fields, sources } in addition to the data set's.
---@param o? perigee.LoaderOptions
---@return perigee.Loader
function Dataset:loader(o)
  o = check.options("loader", o or {}, {
    seed = { "integer", 0 }, batch = { "integer", self.batch }, threads = { "integer", self.threads },
    shuffle = { "boolean", self.shuffle }, flip = { "boolean|string", self.flip }, crop = { "integer", self.crop },
    first = { "integer" }, stride = { "integer" }, device = { "string" }, depth = { "integer", self.depth },
    more = { "table" },
  })
  self:open()
  o.count, o.fields, o.sources = self.count, self.field_list, self.sources
  o.classes, o.name = self.classes, ("data set '%s'"):format(self.name)
  if o.more then
    o.fields, o.sources = { unpack(self.field_list) }, setmetatable({}, { __index = self.sources })
    for k, field in ipairs(o.more.fields) do
      o.fields[#self.field_list + k], o.sources[field.name] = field, o.more.sources[field.name]
    end
  end
  o.threads = o.threads or default_threads(self.sources)
  return loader.new(o)
end

local NAMED = 3 -- of what was left out, in a line

--- The data in a line: "38 pictures of 2 classes (2 files left out: cat/a.jpg, dog/more/)".
---@return string
function Dataset:summary()
  self:open()
  local noun = self.sources.images and "pictures" or "samples"
  local out = self.left_out or {}
  local text = ("%d %s"):format(self.count, noun)
  if self.classes then text = ("%s of %d %s"):format(text, self.classes, self.classes == 1 and "class" or "classes") end
  if #out == 0 then return text end
  return ("%s (%d %s left out: %s%s)"):format(text, #out, #out == 1 and "file" or "files",
    table.concat(out, ", ", 1, math.min(#out, NAMED)), #out > NAMED and ", ..." or "")
end

--- Reads records by their numbers: fields as they are stored, pictures neither mirrored nor shifted.
---@class perigee.RecordReader
---@field names string[]
---@field loader perigee.Loader
local RecordReader = {}
RecordReader.__index = RecordReader

--- A reader of some fields, by their names.
---@param names string[]
---@return perigee.RecordReader
function Dataset:reader(names)
  local one = self:loader { batch = 1, shuffle = false, flip = false, crop = 0, threads = 0, depth = 1 }
  local wanted = {}
  for _, name in ipairs(names) do wanted[name] = true end
  for _, field in ipairs(self.field_list) do one:want(field.name, wanted[field.name] or false) end
  return setmetatable({ names = names, loader = one }, RecordReader)
end

--- The records with these numbers, which count from 0 and begin again after the last: tensors [#numbers,...] by name.
---@param numbers integer[]
---@return table<string, perigee.Tensor>
function RecordReader:read(numbers)
  local result = {}
  for k, number in ipairs(numbers) do
    self.loader:seek(number)
    local record = self.loader:next()
    for _, name in ipairs(self.names) do
      local one = record[name]
      result[name] = result[name] or tensor.empty({ #numbers, unpack(one.shape, 2) }, one.dtype)
      result[name]:narrow(1, k, 1):copy_(one)
    end
  end
  return result
end

function RecordReader:close() self.loader:close() end

--- The size of a file and the time of its last change, as a text.
local function written(path)
  local attributes = lfs.attributes(path) or core.fail("%s: it is gone", path)
  return (" %d %d"):format(attributes.size, attributes.modification)
end

--- What members of archives are: their names and where they lie.
local function places_text(source, count)
  local bytes = ffi.sizeof "pg_place" * count
  return table.concat(source.names or {}, "\n") .. ffi.string(source.places, bytes)
    .. (source.mirrored_places and ffi.string(source.mirrored_places, bytes) or "")
end

--- A few letters that change when the data do: of tensors every byte counts, of files their names, sizes and times of
--- change.
---@return string
function Dataset:digest()
  self:open()
  local crc = 0
  local function add(text) crc = C.pg_crc32(crc, text, #text) end
  add(("%s %d %d"):format(self.name, self.count, self.classes or 0))
  for _, field in ipairs(self.field_list) do
    local source = self.sources[field.name]
    add(("%s %s %s"):format(field.name, field.dtype, core.shape_text(field.shape)))
    if source.tensor then crc = C.pg_crc32(crc, source.tensor:pointer(), source.tensor:bytes())
    elseif source.archives then
      add(source.header or "")
      add(places_text(source, self.count))
      for _, path in ipairs(source.archives) do add(path .. written(path)) end
    elseif source.names then
      add(source.header or "")
      for _, name in ipairs(source.names) do add(name .. written(source.folder .. "/" .. name)) end
    else add(source.offset .. written(source.path)) end
  end
  return ("%08x"):format(crc)
end

local SIZES = 1000 -- files whose sizes are looked at

--- What the data are, for a run's checkpoints: equal wherever the same files lie and whenever they were copied there.
--- Of tensors every byte counts, of files their names and the sizes of up to 1,000 of them.
---@return { count: integer, class_names?: string[], digest: string }
function Dataset:identity()
  if self.identified then return self.identified end
  self:open()
  local crc = 0
  local function add(text) crc = C.pg_crc32(crc, text, #text) end
  for _, field in ipairs(self.field_list) do
    local source = self.sources[field.name]
    add(("%s %s %s\n"):format(field.name, field.dtype, core.shape_text(field.shape)))
    if source.tensor then crc = C.pg_crc32(crc, source.tensor:pointer(), source.tensor:bytes())
    elseif source.path then add(("%d %d\n"):format(source.offset, files.size(source.path)))
    elseif source.archives then
      add(places_text(source, self.count))
      for _, path in ipairs(source.archives) do add(("%d\n"):format(files.size(path))) end
    else
      local step = math.max(1, math.floor(self.count / SIZES))
      for k, name in ipairs(source.names) do
        add(name .. "\n")
        if k % step == 0 then add(("%d\n"):format(files.size(source.folder .. "/" .. name))) end
      end
    end
  end
  self.identified = { count = self.count, class_names = self.class_names, digest = ("%08x"):format(crc) }
  return self.identified
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
