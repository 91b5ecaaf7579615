--- The second half of preparing: the prepared pictures, encoded. A latent's file is float32 [2·channels,h,w], the mean
--- and behind it the standard deviation of the encoder's normal distribution, not scaled; pictures go in as
--- x/127.5 − 1, as REPA's do. With `mirrored`, those of the mirror images lie in a folder of their own.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local kinds = require "perigee.io.weights_kind"
local layout = require "perigee.prepare.layout"
local loader = require "perigee.io.loader"
local manifests = require "perigee.io.manifest"
local models = require "perigee.models"
local npy = require "perigee.io.npy"
local ops = require "perigee.core.ops"
local weights = require "perigee.io.weights"
local work = require "perigee.prepare.work"

local M = {}

--- The autoencoder of a weights file, on a device.
local function open_encoder(path, device)
  local file = weights.open(path)
  local kind = kinds.expect(file, "autoencoder_kl", {})
  local options = models.autoencoder_kl.options_of(file, kind)
  options.weights = path
  local model = models.autoencoder_kl(options)
  model:materialise { device = device }
  return model
end

--- The pictures that the manifest lists, in the order of their numbers.
local function listed(folder, manifest, batch, workers)
  local size, names = manifest.about.size, {}
  for k, line in ipairs(manifest.lines) do
    if line.crc then names[#names + 1] = layout.image_name(k - 1) end
  end
  if #names == 0 then core.fail("%s lists no pictures", manifest.path) end
  return loader.new { count = #names, batch = batch, shuffle = false, threads = workers, depth = 3,
    fields = { { name = "images", dtype = "uint8", shape = { size, size, 3 } } },
    sources = { images = { folder = folder, names = names } } }
end

--- Mean and deviation, [B,2C,h,w] on the CPU, of pictures [B,H,W,3].
local function moments(self, pixels)
  local x = (pixels:to(self.device):to "float32" / 127.5 - 1):permute({ 1, 4, 2, 3 }):contiguous()
  local mean, deviation = self.model:encode(x)
  return ops.concat({ mean, deviation }, 2):to("cpu"):contiguous()
end

local function save(self, folder, number, latent)
  local path = ("%s/%s/%s"):format(self.dest, folder, layout.latent_name(number))
  self.make_folder[folder](path)
  return work.place(path, function(w)
    w:write(npy.header_text(latent.dtype, latent.shape)):write_tensor(latent)
  end)
end

--- Writes the latents of samples from number `first`; samples that were left out have none.
local function write_batch(self, first)
  local lines, numbers = {}, {}
  local pictures = self.pictures.lines
  local pixels, most = self.next(first)
  for number = first, #pictures - 1 do
    if #numbers == most then break end
    local picture = pictures[number + 1]
    lines[#lines + 1] = { label = picture.label, name = picture.name, reason = picture.reason }
    if picture.crc then numbers[#numbers + 1] = number end
  end
  if #numbers == 0 then return lines end
  pixels = pixels:narrow(1, 1, #numbers)
  local latents = moments(self, pixels)
  local mirrored = self.mirrored and moments(self, ops.flip(pixels, 3))
  for k, number in ipairs(numbers) do
    local line = lines[number - first + 1]
    line.crc, line.bytes = save(self, layout.latents, number, latents:select(1, k))
    if mirrored then line.mirrored = save(self, layout.mirrored, number, mirrored:select(1, k)) end
  end
  return lines
end

--- A function that gives the pictures from sample `number` on, up to the end of a batch, and how many they are.
local function pictures_from(o, images)
  local before, count, all = {}, 0, listed(o.dest .. "/" .. layout.images, images, o.batch, o.workers)
  for k, line in ipairs(images.lines) do
    before[k - 1] = count
    if line.crc then count = count + 1 end
  end
  return function(number)
    if before[number] == count then return nil, 1 end -- the last ones were left out
    local step, place = math.floor(before[number] / o.batch), before[number] % o.batch
    if all.step ~= step - 1 then all:seek(step) end
    return all:next().images:narrow(1, place + 1, o.batch - place), math.min(o.batch, count - step * o.batch) - place
  end
end

--- The digest of a weights file's bytes.
local function digest_of(path) return ("%08x"):format(files.crc32(path, 0, files.size(path))) end

---@class perigee.PrepareLatents
---@field dest string
---@field vae string       a weights file
---@field mirrored boolean
---@field batch integer
---@field workers integer
---@field device string
---@field progress perigee.Progress

--- Makes DEST/vae-sd, and vae-sd-mirrored.
---@param o perigee.PrepareLatents
---@param images perigee.Manifest  of the prepared pictures
---@return perigee.Manifest
function M.run(o, images)
  local folder = o.dest .. "/" .. layout.latents
  local path = folder .. ".manifest"
  if files.exists(folder) and not manifests.read(path) and #files.list(folder) > 0 then
    core.fail("%s is there, but not %s, which would say how it was made (edm2's latents look like these, and are of "
      .. "pictures in another range); choose another folder", folder, path)
  end
  files.make_folder(folder)
  local model = open_encoder(o.vae, o.device)
  local size = images.about.size
  if size % model.shrink ~= 0 then
    core.fail("--size %d: %s makes latents of pictures whose sides are multiples of %d", size, o.vae, model.shrink)
  end
  local side = size / model.shrink
  local manifest = manifests.open(path, { kind = "latents", count = images.about.count, list = images.about.list,
    size = size, vae = digest_of(o.vae), channels = model.latent, side = side, mirrored = o.mirrored,
    scale = model.scale, shift = model.shift })
  local times = o.mirrored and 2 or 1
  local self = { dest = o.dest, model = model, device = o.device, batch = o.batch, mirrored = o.mirrored,
    pictures = images, make_folder = { [layout.latents] = work.folders(), [layout.mirrored] = work.folders() } }
  if not manifest:is_whole() then
    self.next = pictures_from(o, images)
    work.run { folder = folder, manifest = manifest, what = o.mirrored and "latents, mirrored too" or "latents",
      bytes = times * (8 * model.latent * side ^ 2 + 4096), progress = o.progress,
      batch = function(first) return write_batch(self, first) end }
  end
  layout.write_labels(folder, manifest, layout.latent_name)
  if o.mirrored then layout.write_labels(o.dest .. "/" .. layout.mirrored, manifest, layout.latent_name) end
  return manifest
end

return M
