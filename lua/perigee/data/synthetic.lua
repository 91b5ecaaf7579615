--- Random numbers where a data set's files would be: for measuring the speed of a step, never for training.
---
---   pg.data.synthetic { batch = 16, classes = 1000, channels = 4, size = 32, image = 256 }
---
--- is latents [channels,size,size] that are trained on as they are, with pictures of `image` pixels for a teacher.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local BATCHES = 4 -- of different samples

--- Random samples of any data set's fields, as perigee.NewDataset.find returns them: bytes of 0 to 255, whole numbers
--- below the number of classes (without classes 0 and 1), normal numbers.
---@param data perigee.Dataset
local function find(data)
  local count, sources = BATCHES * data.batch, {}
  local state = tensor.tensor({ 0, 0, 0 }, "int64")
  for _, field in ipairs(data:fields()) do
    local shape, draw = { count, unpack(field.shape) }, { state = state, purpose = "synthetic " .. field.name }
    local values
    if field.dtype == "uint8" then values = (ops.random_uniform(shape, draw) * 256):to "uint8"
    elseif core.is_floating[field.dtype] then values = ops.random_normal(shape, draw):to(field.dtype)
    else
      draw.high = data.classes or 2
      values = ops.random_integers(shape, draw):to(field.dtype)
    end
    sources[field.name] = { tensor = values }
  end
  return count, sources
end

--- The field `latents` as the student sees it.
local function as_they_are(_, batch, _, dtype) return batch.latents:to(dtype) end

---@class perigee.SyntheticOptions : perigee.DatasetOptions
---@field classes? integer   1000
---@field channels? integer  of the latents: 4
---@field size? integer      side of the latents: 32
---@field image? integer     side of the pictures: 256

---@class perigee.data
---@field synthetic fun(options: perigee.SyntheticOptions): perigee.Dataset

---@param given perigee.SyntheticOptions
---@return perigee.Dataset
local function make(given)
  local o = check.options("data.synthetic", given, dataset.spec {
    classes = { "integer", 1000 }, channels = { "integer", 4 }, size = { "integer", 32 }, image = { "integer", 256 },
  })
  return dataset.new {
    name = "synthetic", classes = o.classes, channels = o.channels, height = o.size, width = o.size, batch = o.batch,
    shuffle = o.shuffle, threads = o.threads, depth = o.depth, image_size = o.image, latents = as_they_are, find = find,
    fields = {
      { name = "latents", dtype = "float32", shape = { o.channels, o.size, o.size } },
      { name = "images", dtype = "uint8", shape = { o.image, o.image, 3 } },
      { name = "labels", dtype = "int64", shape = {} },
    },
  }
end

return setmetatable({ find = find }, { __call = function(_, given) return make(given) end })
