--- ImageNet as REPA and HASTE keep it:
---   images/ddddd/imgNNNNNNNN.png                raw pictures, for the teacher
---   vae-sd/ddddd/img-mean-std-NNNNNNNN.npy      float32 [8,h,w]: mean and standard deviation of the VAE's latent
---   vae-sd/dataset.json                         {"labels": [["ddddd/img-mean-std-NNNNNNNN.npy", label], ...]}
--- Picture and latent belong together by their number, which is checked. The student's input is drawn at every step:
--- z = (mean + std·ε)·0.18215.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local npy = require "perigee.io.npy"
local pictures = require "perigee.io.pictures"
local tensor = require "perigee.core.tensor"

local CHANNELS = 4      -- of the latent; the files hold twice as many
local SHRINK = 8        -- pixels a latent's pixel, along a side
local SCALE = 0.18215   -- of the Stable Diffusion VAE

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

local function check_pairs(o, latents, latent_numbers, images, image_numbers)
  if #images ~= #latents then
    core.fail("data.imagenet_latents: %s has %d pictures in images/ and %d latents in vae-sd/", o.dir, #images,
      #latents)
  end
  for k, number in ipairs(latent_numbers) do
    if image_numbers[k] ~= number then
      core.fail("data.imagenet_latents: %s: latent %s has no picture of its number (next comes %s)", o.dir, latents[k],
        images[k])
    end
  end
end

--- The header that all latents begin with, from the first one.
local function shared_header(path, side)
  local header = npy.header(path)
  local s = header.shape
  if header.dtype ~= "float32" or #s ~= 3 or s[1] ~= 2 * CHANNELS or s[2] ~= side or s[3] ~= side then
    core.fail("%s: %s %s; expected float32 [%d,%d,%d]", path, header.dtype, core.shape_text(s), 2 * CHANNELS, side,
      side)
  end
  return files.read(path, 0, header.offset)
end

local LOOKED_AT = 8 -- files, spread over all

--- An error where deviations are negative: then they are none.
local function check_deviations(folder, names)
  for k = 1, math.min(#names, LOOKED_AT) do
    local path = folder .. "/" .. names[math.floor((k - 1) * #names / math.min(#names, LOOKED_AT)) + 1]
    tensor.tidy(function()
      local moments = npy.load(path)
      local values = moments:reshape({ moments:numel() }):totable()
      for at = #values / 2 + 1, #values do
        if values[at] < 0 then
          core.fail("%s: its deviations, channels %d to %d, hold %g, and no deviation is negative: the file seems to "
            .. "hold mean and log-variance; write exp(0.5 * logvar) in the log-variance's place", path, CHANNELS + 1,
            2 * CHANNELS, values[at])
        end
      end
    end)
  end
end

local function find(self, o, side)
  local folder, images = o.dir .. "/vae-sd", o.dir .. "/images"
  for _, needed in ipairs { o.dir, folder, o.images and images or folder } do
    if files.kind(needed) ~= "directory" then core.fail("data.imagenet_latents: no folder %s", needed) end
  end
  self.left_out = {}
  local latents, numbers = numbered(folder, "^img%-mean%-std%-(%d+)%.npy$", self.left_out)
  if #latents == 0 then
    core.fail("data.imagenet_latents: %s has no files like 00000/img-mean-std-00000000.npy", folder)
  end
  local header = shared_header(folder .. "/" .. latents[1], side)
  check_deviations(folder, latents)
  local sources = {
    latents = { folder = folder, names = latents, header = header },
    labels = { tensor = dataset.labels(folder, read_labels(folder .. "/dataset.json", latents), o.classes) },
  }
  if o.images then
    local names, image_numbers = numbered(images, "^img(%d+)%.png$", self.left_out)
    check_pairs(o, latents, numbers, names, image_numbers)
    sources.images = { folder = images, names = names }
  end
  return #latents, sources
end

--- z [B,4,h,w] of a batch's means and deviations; a draw of the step's own for each sample.
local function draw_latents(_, batch, state, dtype)
  local ops = require "perigee.core.ops"
  local moments = batch.latents:to(dtype)
  local mean, deviation = moments:narrow(2, 1, CHANNELS), moments:narrow(2, CHANNELS + 1, CHANNELS)
  local noise = ops.random_normal(mean.shape, { state = state, purpose = "latents", dtype = dtype })
  return (mean + deviation * noise) * SCALE
end

---@class perigee.ImagenetLatentsOptions : perigee.DatasetOptions
---@field dir string
---@field size? integer      side of the raw pictures, default 256
---@field classes? integer   default 1000
---@field images? boolean    read the raw pictures too, for a teacher; default true

---@class perigee.data
---@field imagenet_latents fun(options: perigee.ImagenetLatentsOptions): perigee.Dataset

---@param given perigee.ImagenetLatentsOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.imagenet_latents", given, dataset.spec {
    dir = "string", size = { "integer", 256 }, classes = { "integer", 1000 }, images = { "boolean", true },
  })
  if o.flip or o.crop > 0 then core.fail "data.imagenet_latents: latents can't be flipped or cropped" end
  local side = o.size / SHRINK
  if side % 1 ~= 0 then core.fail("data.imagenet_latents: size = %d is not a multiple of %d", o.size, SHRINK) end
  local fields = {
    { name = "latents", dtype = "float32", shape = { 2 * CHANNELS, side, side } },
    { name = "labels", dtype = "int64", shape = {} },
  }
  if o.images then fields[3] = { name = "images", dtype = "uint8", shape = { o.size, o.size, 3 } } end
  return dataset.new {
    name = "imagenet-latents", classes = o.classes, channels = CHANNELS, height = side, width = side, batch = o.batch,
    shuffle = o.shuffle, threads = o.threads, depth = o.depth, image_size = o.images and o.size or nil, fields = fields,
    latents = draw_latents,
    find = function(self) return find(self, o, side) end,
  }
end
