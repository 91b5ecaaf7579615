--- Pictures or records that are arrays already: tensors, or .npy files.
---
---   pg.data.arrays { images = "x.npy", labels = "y.npy", classes = 10, batch = 64, height = 32, width = 32 }
---
--- `images` is uint8 [n,H,W,C] or, as latents that are trained on as they are, float32 [n,C,H,W]; `labels` is [n]. A
--- file over `memory` bytes stays on the disk and is read as batches need it. Height, width and channels need to be
--- given only where neither a tensor nor a file is there to tell.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local npy = require "perigee.io.npy"
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

--- The images' source: in memory, or in a file that is too big for that.
local function image_source(o, sample)
  local images = o.images
  if type(images) == "string" then
    local header = npy.header(images)
    if header.dtype ~= sample.dtype or not layout.same_shape({ unpack(header.shape, 2) }, sample.shape) then
      core.fail("%s: %s %s; expected %s [n,%s]", images, header.dtype, core.shape_text(header.shape), sample.dtype,
        table.concat(sample.shape, ","))
    end
    if layout.numel(header.shape) * core.dtype_bytes[header.dtype] > o.memory then
      return header.shape[1], { path = images, offset = header.offset }
    end
    images = npy.load(images, nil, nil, { purpose = "data" })
  end
  return images.shape[1], { tensor = images:is_contiguous() and images or images:contiguous() }
end

---@class perigee.ArraysOptions : perigee.DatasetOptions
---@field images perigee.Tensor|string
---@field labels perigee.Tensor|string
---@field classes integer
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
    images = "string|tensor", labels = "string|tensor", classes = "integer", height = { "integer" },
    width = { "integer" }, channels = { "integer" }, memory = { "number", 2 ^ 31 }, name = { "string", "arrays" },
    class_names = { "table" },
  })
  local sample = sample_of(o)
  local pixels = sample.dtype == "uint8"
  local height, width, channels = unpack(sample.shape)
  if not pixels then channels, height, width = unpack(sample.shape) end
  if not pixels and (o.flip or o.crop > 0) then
    core.fail "data.arrays: only uint8 pictures can be flipped and cropped"
  end
  return dataset.new {
    name = o.name, classes = o.classes, channels = channels, height = height, width = width, batch = o.batch,
    flip = o.flip, crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    class_names = o.class_names,
    fields = {
      { name = pixels and "images" or "latents", dtype = sample.dtype, shape = sample.shape },
      { name = "labels", dtype = "int64", shape = {} },
    },
    latents = not pixels and function(_, batch, _, dtype) return batch.latents:to(dtype) end or nil,
    find = function()
      local count, source = image_source(o, sample)
      source.augment = pixels
      local file = type(o.labels) == "string" and o.labels
      local labels = dataset.labels(file or "data.arrays", file and npy.load(file) or o.labels, o.classes)
      return count, { [pixels and "images" or "latents"] = source, labels = { tensor = labels } }
    end,
  }
end
