--- ImageNet as REPA and HASTE keep it, and `perigee prepare` makes it:
---   images/ddddd/imgNNNNNNNN.png                raw pictures, for the teacher
---   vae-sd/ddddd/img-mean-std-NNNNNNNN.npy      float32 [2C,h,w]: mean and standard deviation of the encoder's latent
---   vae-sd/dataset.json                         {"labels": [["ddddd/img-mean-std-NNNNNNNN.npy", label], ...]}
---   vae-sd-mirrored/ddddd/...                   the same of the mirror images, where the data flip
--- Picture and latent belong together by their number, which is checked. The student's input is drawn at every step:
--- z = (mean + std·ε − shift)·scale.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local latents = require "perigee.io.latents"
local manifests = require "perigee.io.manifest"
local npy = require "perigee.io.npy"
local pictures = require "perigee.io.pictures"

local SHRINK = 8 -- pixels of a picture a latent's pixel has along a side, where the recipe does not say

--- Names of the files in the folders of a folder that match a pattern, sorted, and the number in each. What else lies
--- there goes to `left_out`, with FOLDER's last part before it.
local function numbered(folder, pattern, left_out)
  local names, numbers = {}, {}
  local function leave_out(name) left_out[#left_out + 1] = folder:match "[^/]*$" .. "/" .. name end
  for _, part in ipairs(files.list(folder)) do
    if not part:match "^%d+$" then
      if part ~= "dataset.json" then leave_out(part) end
    else
      for _, name in ipairs(files.list(folder .. "/" .. part)) do
        local number = name:match(pattern)
        if number then
          names[#names + 1] = part .. "/" .. name
          numbers[#numbers + 1] = tonumber(number)
        else leave_out(part .. "/" .. name) end
      end
    end
  end
  return names, numbers
end

--- The label of each latent, by its name.
local function read_labels(path, names)
  return pictures.listed_labels(path, files.read(path), names, "") or core.fail("%s: it has no list 'labels'", path)
end

local function check_pairs(o, encoded, latent_numbers, images, image_numbers)
  if #images ~= #encoded then
    core.fail("data.imagenet_latents: %s has %d pictures in images/ and %d latents in vae-sd/", o.dir, #images,
      #encoded)
  end
  for k, number in ipairs(latent_numbers) do
    if image_numbers[k] ~= number then
      core.fail("data.imagenet_latents: %s: latent %s has no picture of its number (next comes %s)", o.dir, encoded[k],
        images[k])
    end
  end
end

--- An error where the latents are not those that the recipe's scale and shift are for.
local function check_origin(o, folder, names)
  local made = manifests.about(folder .. ".manifest")
  for _, key in ipairs { "scale", "shift" } do
    local own = o[key] or 0
    if made and type(own) == "number" and made[key] ~= own then
      core.fail("data.imagenet_latents: %s = %g, but the autoencoder that made %s has the %s %g; say %s = %g", key, own,
        folder, key, made[key], key, made[key])
    end
  end
  local means = latents.means(folder, names, o.channels)
  if not o.shift and latents.are_edm2(means) then
    core.fail("data.imagenet_latents: %s: the means of its channels (%s) are those of edm2's latents, which are of "
      .. "pictures in [0, 1]; make them by perigee prepare, or train on edm2's as edm2 does: shift = { %s }, "
      .. "scale = { %s }", folder, ("%.2f "):rep(#means):format(unpack(means)):sub(1, -2),
      table.concat(latents.edm2.mean, ", "), ("%.4f "):rep(4):format(latents.scale_of_edm2()):sub(1, -2)
        :gsub(" ", ", "))
  end
end

local function expect_folders(...)
  for _, needed in ipairs { ... } do
    if files.kind(needed) ~= "directory" then core.fail("data.imagenet_latents: no folder %s", needed) end
  end
end

--- The folder of the mirror images' latents: as many, under the same names.
local function mirrored_folder(self, folder, names)
  local mirrored = folder .. "-mirrored"
  if files.kind(mirrored) ~= "directory" then
    core.fail("data.imagenet_latents: flip = true needs the latents of the mirror images, and there is no folder %s; "
      .. "perigee prepare --flips makes them", mirrored)
  end
  local others = numbered(mirrored, "^img%-mean%-std%-(%d+)%.npy$", self.left_out)
  for k, name in ipairs(names) do
    if others[k] and others[k] < name then core.fail("%s: it has no %s, but %s has", folder, others[k], mirrored) end
    if others[k] ~= name then core.fail("%s: it has no %s", mirrored, name) end
  end
  return mirrored
end

local function find(self, o, shape)
  local folder, images = o.dir .. "/vae-sd", o.dir .. "/images"
  expect_folders(o.dir, folder, o.images and images or folder)
  self.left_out = {}
  local encoded, numbers = numbered(folder, "^img%-mean%-std%-(%d+)%.npy$", self.left_out)
  if #encoded == 0 then
    core.fail("data.imagenet_latents: %s has no files like 00000/img-mean-std-00000000.npy", folder)
  end
  local header = npy.shared_header(folder .. "/" .. encoded[1], shape)
  check_origin(o, folder, encoded)
  local sources = {
    latents = { folder = folder, names = encoded, header = header,
      mirrored_folder = o.flip and mirrored_folder(self, folder, encoded) or nil },
    labels = { tensor = dataset.labels(folder, read_labels(folder .. "/dataset.json", encoded), o.classes) },
  }
  if o.images then
    local names, image_numbers = numbered(images, "^img(%d+)%.png$", self.left_out)
    check_pairs(o, encoded, numbers, names, image_numbers)
    sources.images = { folder = images, names = names, augment = o.flip }
  end
  return #encoded, sources
end

---@class perigee.ImagenetLatentsOptions : perigee.DatasetOptions
---@field dir string
---@field size? integer      side of the raw pictures, default 256
---@field classes? integer   default 1000
---@field images? boolean    read the raw pictures too, for a teacher; default true
---@field channels? integer  of the latents, default 4
---@field side? integer      of the latents, default size / 8
---@field scale? number|number[]  of the latents, or of each channel; default 0.18215, Stable Diffusion's
---@field shift? number|number[]  default 0

---@class perigee.data
---@field imagenet_latents fun(options: perigee.ImagenetLatentsOptions): perigee.Dataset

---@param given perigee.ImagenetLatentsOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.imagenet_latents", given, dataset.spec {
    dir = "string", size = { "count", 256 }, classes = { "integer", 1000 }, images = { "boolean", true },
    channels = { "count", 4 }, side = { "count" }, scale = { "number|numbers", 0.18215 },
    shift = { "number|numbers" },
  })
  if o.crop > 0 then core.fail "data.imagenet_latents: latents can't be cropped" end
  local side = o.side or o.size / SHRINK
  if side % 1 ~= 0 then
    core.fail("data.imagenet_latents: size = %d is not a multiple of %d; give the latents' side", o.size, SHRINK)
  end
  local shape = { 2 * o.channels, side, side }
  local fields = {
    { name = "latents", dtype = "float32", shape = shape },
    { name = "labels", dtype = "int64", shape = {} },
  }
  if o.images then fields[3] = { name = "images", dtype = "uint8", shape = { o.size, o.size, 3 } } end
  local scaled, unscaled = latents.scaled("data.imagenet_latents", o.channels, o.scale, o.shift or 0)
  return dataset.new {
    name = "imagenet-latents", classes = o.classes, channels = o.channels, height = side, width = side,
    batch = o.batch, flip = o.flip, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    image_size = o.images and o.size or nil, fields = fields,
    latents = function(_, batch, state, dtype) return scaled(latents.draw(batch.latents, state, dtype)) end,
    unscale = unscaled and function(_, z) return unscaled(z) end or nil,
    find = function(self) return find(self, o, shape) end,
  }
end
