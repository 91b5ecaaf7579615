--- Pictures or records that are arrays already: tensors, or .npy files.
---
---   pg.data.arrays { images = "x.npy", labels = "y.npy", classes = 10, batch = 64, height = 32, width = 32 }
---   pg.data.arrays { images = "x.npy", fields = { text = "text.npy" }, batch = 64 }
---
--- `images` is uint8 [n,H,W,C] or, as latents that are trained on as they are, float32 [n,C,H,W]; `labels` is [n], each
--- of `fields` [n,...]: what the student is called with (docs/conditioning.md), or what losses read. A file over
--- `memory` bytes stays on the disk and is read as batches need it. Height, width and channels need to be given only
--- where neither a tensor nor a file is there to tell; so does the `shape` of a field.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local dtypes = require "perigee.core.dtype"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local npy = require "perigee.io.npy"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local function is_missing(x) return type(x) == "string" and not files.exists(x) end

--- Dtype and shape of a tensor or a .npy file.
local function described(x) return tensor.is_tensor(x) and x or npy.header(x) end

--- { dtype, shape } of one sample, from the options where the array isn't there.
local function sample_of(o)
  if is_missing(o.images) then
    if not (o.height and o.width) then
      core.fail("data.arrays: %s is not there; give height and width to plan the recipe without it", o.images)
    end
    return { dtype = "uint8", shape = { o.height, o.width, o.channels or 3 } }
  end
  local found = described(o.images)
  if #found.shape ~= 4 or (found.dtype ~= "uint8" and found.dtype ~= "float32") then
    core.fail("data.arrays: images are uint8 [n,H,W,C] or float32 [n,C,H,W], not %s %s", found.dtype,
      core.shape_text(found.shape))
  end
  return { dtype = found.dtype, shape = { unpack(found.shape, 2) } }
end

-- ---- further fields ---------------------------------------------------------------------------------------------

---@class perigee.ArrayField
---@field [1] perigee.Tensor|string  the array, [n,...]
---@field shape? integer[]           of one sample, where its file isn't there
---@field dtype? string              and its dtype: float32

--- A further field: { name, dtype, shape, array }.
local function field_of(name, given)
  local what = ("data.arrays: fields.%s"):format(name)
  if type(name) ~= "string" or name == "images" or name == "latents" or name == "labels" then
    core.fail("data.arrays: fields has '%s'; expected names other than images, latents and labels", tostring(name))
  end
  local array = given
  local o = {}
  if type(given) == "table" and not tensor.is_tensor(given) then
    array, o = given[1], tables.copy(given)
    o[1] = nil
    o = check.options(what, o, { shape = { "counts" }, dtype = { "string" } })
  end
  if type(array) ~= "string" and not tensor.is_tensor(array) then
    core.fail("%s is a %s; expected a tensor, a .npy file, or { \"file.npy\", shape = { 77, 768 } }", what, type(array))
  end
  if is_missing(array) then
    if not o.shape then
      core.fail("%s: %s is not there; write { \"%s\", shape = { ... } }, one sample's, to plan the recipe without it",
        what, array, array)
    end
    return { name = name, dtype = dtypes.named(o.dtype, what), shape = o.shape, array = array }
  end
  local found = described(array)
  if #found.shape < 1 then core.fail("%s is %s; expected [n,...]", what, core.shape_text(found.shape)) end
  local own = { unpack(found.shape, 2) }
  if o.shape and not layout.same_shape(o.shape, own) or o.dtype and dtypes.named(o.dtype, what) ~= found.dtype then
    core.fail("%s is %s %s; expected %s [n,%s]", what, found.dtype, core.shape_text(found.shape),
      dtypes.named(o.dtype or found.dtype), table.concat(o.shape or own, ","))
  end
  return { name = name, dtype = found.dtype, shape = own, array = array }
end

local function further_fields(given)
  local list = {}
  for k, name in ipairs(tables.sorted_keys(given)) do list[k] = field_of(name, given[name]) end
  return list
end

-- ---- sources ----------------------------------------------------------------------------------------------------

--- The number of samples and the source of an array: in memory, or in a file that is too big for that.
---@param sample { dtype: string, shape: integer[] }
local function source_of(array, sample, memory)
  if type(array) == "string" then
    local header = npy.header(array)
    if header.dtype ~= sample.dtype or not layout.same_shape({ unpack(header.shape, 2) }, sample.shape) then
      core.fail("%s: %s %s; expected %s [n,%s]", array, header.dtype, core.shape_text(header.shape), sample.dtype,
        table.concat(sample.shape, ","))
    end
    if layout.numel(header.shape) * core.dtype_bytes[header.dtype] > memory then
      return header.shape[1], { path = array, offset = header.offset }
    end
    array = npy.load(array, nil, nil, { purpose = "data" })
  end
  return array.shape[1], { tensor = array:is_contiguous() and array or array:contiguous() }
end

--- All sources by field name, and how many samples there are.
local function find(o, sample, further)
  local pixels = sample.dtype == "uint8"
  local count, source = source_of(o.images, sample, o.memory)
  source.augment = pixels
  local sources = { [pixels and "images" or "latents"] = source }
  if o.labels then
    local file = type(o.labels) == "string" and o.labels
    local labels = dataset.labels(file or "data.arrays", file and npy.load(file) or o.labels, o.classes)
    sources.labels = { tensor = labels }
  end
  for _, field in ipairs(further) do
    local own
    own, sources[field.name] = source_of(field.array, field, o.memory)
    if own ~= count then
      core.fail("data.arrays: %d images, but fields.%s has %d samples", count, field.name, own)
    end
  end
  return count, sources
end

---@class perigee.ArraysOptions : perigee.DatasetOptions
---@field images perigee.Tensor|string
---@field labels? perigee.Tensor|string
---@field classes? integer      with labels
---@field fields? table<string, perigee.Tensor|string|perigee.ArrayField>  further fields of a sample, by name
---@field height? integer
---@field width? integer
---@field channels? integer     default 3
---@field memory? integer       bytes; default 2 GiB
---@field name? string
---@field class_names? string[]

---@class perigee.data
---@field arrays fun(options: perigee.ArraysOptions): perigee.Dataset

---@param given perigee.ArraysOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.arrays", given, dataset.spec {
    images = "string|tensor", labels = { "string|tensor" }, classes = { "integer" }, height = { "integer" },
    width = { "integer" }, channels = { "integer" }, memory = { "number", 2 ^ 31 }, name = { "string", "arrays" },
    class_names = { "table" }, fields = { "table", {} },
  })
  if (o.labels == nil) ~= (o.classes == nil) then
    core.fail("data.arrays: option '%s' is missing; labels and classes go together",
      o.labels == nil and "labels" or "classes")
  end
  local sample, further = sample_of(o), further_fields(o.fields)
  local pixels = sample.dtype == "uint8"
  local height, width, channels = unpack(sample.shape)
  if not pixels then channels, height, width = unpack(sample.shape) end
  if not pixels and (o.flip or o.crop > 0) then
    core.fail "data.arrays: only uint8 pictures can be flipped and cropped"
  end
  local fields = { { name = pixels and "images" or "latents", dtype = sample.dtype, shape = sample.shape } }
  if o.labels then fields[2] = { name = "labels", dtype = "int64", shape = {} } end
  for _, field in ipairs(further) do
    fields[#fields + 1] = { name = field.name, dtype = field.dtype, shape = field.shape }
  end
  return dataset.new {
    name = o.name, classes = o.classes, channels = channels, height = height, width = width, batch = o.batch,
    flip = o.flip, crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    class_names = o.class_names, fields = fields,
    latents = not pixels and function(_, batch, _, dtype) return batch.latents:to(dtype) end or nil,
    find = function() return find(o, sample, further) end,
  }
end
