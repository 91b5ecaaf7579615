--- MS-COCO as U-ViT and REPA keep it, and `perigee prepare coco` makes it:
---   SPLIT/{i}.png        the picture, for the teacher
---   SPLIT/{i}.npy        float32 [2C,h,w]: mean and log-variance of the encoder's latent
---   SPLIT/{i}_{k}.npy    float32 [words,width]: the features of the picture's k-th caption
--- A record is a caption with its picture, so that an epoch sees every caption once. The student's input is drawn at
--- every step: z = (mean + exp(log-variance/2)·ε)·scale.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local latents = require "perigee.io.latents"
local npy = require "perigee.io.npy"
local ops = require "perigee.core.ops"

local SHRINK = 8 -- pixels of a picture a latent's pixel has along a side, where the recipe does not say
local LEAST, MOST = -30, 20 -- of a log-variance, as the autoencoder clamps it

--- What lies in a split's folder: numbers of latents and pictures, captions { picture, number } in their order.
local function listed(folder, left_out)
  local found, captions = { npy = {}, png = {} }, {}
  for _, name in ipairs(files.list(folder)) do
    local number, ending = name:match "^(%d+)%.(n?p[yn]g?)$"
    local picture, caption = name:match "^(%d+)_(%d+)%.npy$"
    if picture then captions[#captions + 1] = { tonumber(picture), tonumber(caption) }
    elseif number and found[ending] then found[ending][tonumber(number)] = true
    elseif name ~= "captions.json" then left_out[#left_out + 1] = name end
  end
  table.sort(captions, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  return found, captions
end

local function find(self, o, shapes)
  local folder = o.dir .. "/" .. o.split
  if files.kind(folder) ~= "directory" then core.fail("data.coco: no folder %s", folder) end
  self.left_out = {}
  local found, captions = listed(folder, self.left_out)
  if #captions == 0 then
    core.fail("data.coco: %s has no captions' features, files like 0_0.npy; `perigee prepare coco --text` takes them "
      .. "from where they are", folder)
  end
  local names = { latents = {}, text = {}, images = {} }
  for k, caption in ipairs(captions) do
    local picture = caption[1]
    for _, ending in ipairs { "npy", o.images and "png" or nil } do
      if not found[ending][picture] then
        core.fail("data.coco: %s: caption %d_%d.npy has no %d.%s", folder, picture, caption[2], picture, ending)
      end
    end
    names.latents[k], names.text[k] = ("%d.npy"):format(picture), ("%d_%d.npy"):format(picture, caption[2])
    if o.images then names.images[k] = ("%d.png"):format(picture) end
  end
  local function source(name)
    local list = names[name]
    return { folder = folder, names = list, header = npy.shared_header(folder .. "/" .. list[1], shapes[name]) }
  end
  return #captions, { latents = source "latents", text = source "text",
    images = o.images and { folder = folder, names = names.images, augment = false } or nil }
end

---@class perigee.CocoOptions : perigee.DatasetOptions
---@field dir string
---@field split? string      "train"
---@field size? integer      side of the pictures, default 256
---@field images? boolean    read the pictures too, for a teacher; default true
---@field channels? integer  of the latents, default 4
---@field side? integer      of the latents, default size / 8
---@field words? integer     tokens of a caption, default 77
---@field text_width? integer  of a token, default 768
---@field scale? number      of the latents: 0.18215, as REPA and HASTE have it; U-ViT's is 0.23010

---@class perigee.data
---@field coco fun(options: perigee.CocoOptions): perigee.Dataset

---@param given perigee.CocoOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.coco", given, dataset.spec {
    dir = "string", split = { "string", "train" }, size = { "count", 256 }, images = { "boolean", true },
    channels = { "count", 4 }, side = { "count" }, words = { "count", 77 }, text_width = { "count", 768 },
    scale = { "number", 0.18215 },
  })
  if o.crop > 0 or o.flip then core.fail "data.coco: latents can't be cropped, and there are none of mirror images" end
  local side = o.side or o.size / SHRINK
  local shapes = { latents = { 2 * o.channels, side, side }, text = { o.words, o.text_width } }
  local fields = {
    { name = "latents", dtype = "float32", shape = shapes.latents },
    { name = "text", dtype = "float32", shape = shapes.text },
  }
  if o.images then fields[3] = { name = "images", dtype = "uint8", shape = { o.size, o.size, 3 } } end
  return dataset.new {
    name = "coco", channels = o.channels, height = side, width = side, batch = o.batch, flip = false,
    shuffle = o.shuffle, threads = o.threads, depth = o.depth, image_size = o.images and o.size or nil, fields = fields,
    latents = function(_, batch, state, dtype)
      local moments = batch.latents:chunk(2, 2)
      local deviation = ops.exp(ops.clamp(moments[2], LEAST, MOST) * 0.5)
      return latents.draw(ops.concat({ moments[1], deviation }, 2), state, dtype) * o.scale
    end,
    find = function(self) return find(self, o, shapes) end,
  }
end
