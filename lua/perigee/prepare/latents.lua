--- The second half of preparing: the prepared pictures, encoded. A latent's file is float32 [2·channels,h,w], the mean
--- and behind it the standard deviation of the encoder's normal distribution, not scaled; pictures go in as
--- x/127.5 − 1, as REPA's do. With `mirrored`, those of the mirror images lie in a folder of their own.
local core = require "perigee.core.ffi"
local encoders = require "perigee.prepare.encoder"
local files = require "perigee.io.files"
local loader = require "perigee.io.loader"
local manifests = require "perigee.io.manifest"
local npy = require "perigee.io.npy"
local ops = require "perigee.core.ops"
local work = require "perigee.prepare.work"

local M = {}

--- The pictures that the manifest lists, in the order of their numbers.
local function listed(layout, manifest, batch, workers)
  local size, names = manifest.about.size, {}
  for k, line in ipairs(manifest.lines) do
    if line.crc then names[#names + 1] = layout.image_name(k - 1) end
  end
  if #names == 0 then core.fail("%s lists no pictures", manifest.path) end
  return loader.new { count = #names, batch = batch, shuffle = false, threads = workers, depth = 3,
    fields = { { name = "images", dtype = "uint8", shape = { size, size, 3 } } },
    sources = { images = { folder = layout.images, names = names } } }
end

local function save(self, folder, number, latent)
  local path = folder .. "/" .. self.layout.latent_name(number)
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
  local latents = self.encoder:encode(pixels)
  local mirrored = self.mirrored and self.encoder:encode(ops.flip(pixels, 3))
  for k, number in ipairs(numbers) do
    local line = lines[number - first + 1]
    line.crc, line.bytes = save(self, self.layout.latents, number, latents:select(1, k))
    if mirrored then line.mirrored = save(self, self.layout.mirrored, number, mirrored:select(1, k)) end
  end
  return lines
end

--- A function that gives the pictures from sample `number` on, up to the end of a batch, and how many they are.
local function pictures_from(o, images, layout)
  local before, count, all = {}, 0, listed(layout, images, o.batch, o.workers)
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

local function expect_own(layout)
  local folder, path = layout.latents, layout.latents_manifest
  if folder ~= layout.images and files.exists(folder) and not manifests.about(path) and #files.list(folder) > 0 then
    core.fail("%s is there, but not %s, which would say how it was made (edm2's latents look like these, and are of "
      .. "pictures in another range); choose another folder", folder, path)
  end
end

--- What the latents are, for their manifest's first line.
local function about(o, images, model)
  local size = images.about.size
  return { kind = "latents", count = images.about.count, list = images.about.list, size = size,
    vae = digest_of(o.vae), channels = model.latent, side = size / model.shrink, mirrored = o.flips or false,
    scale = model.scale, shift = model.shift }
end

--- Makes the latents' files, and with `flips` those of the mirror images'. Returns their manifest.
---@param o perigee.PrepareOptions
---@param images perigee.Manifest  of the prepared pictures
---@param layout perigee.PrepareLayout
---@return perigee.Manifest
function M.run(o, images, layout)
  expect_own(layout)
  local encoder = encoders.open { weights = o.vae, size = images.about.size, batch = o.batch, device = o.device,
    log_variance = layout.log_variance }
  local told = about(o, images, encoder.model)
  files.make_folder(layout.latents)
  local manifest = manifests.open(layout.latents_manifest, told)
  local self = { layout = layout, encoder = encoder, mirrored = o.flips, pictures = images,
    make_folder = { [layout.latents] = work.folders() } }
  if o.flips then self.make_folder[layout.mirrored] = work.folders() end
  if not manifest:is_whole() then
    self.next = pictures_from(o, images, layout)
    work.run { folder = layout.latents, manifest = manifest, what = o.flips and "latents, mirrored too" or "latents",
      bytes = (o.flips and 2 or 1) * (8 * told.channels * told.side ^ 2 + 4096), progress = o.progress,
      batch = function(first) return write_batch(self, first) end }
  end
  encoder:close()
  return manifest
end

return M
