--- The first half of preparing: pictures of a folder or archive, cropped as ADM does, to PNG files.
local core = require "perigee.core.ffi"
local failure = require "perigee.base.failure"
local files = require "perigee.io.files"
local loader = require "perigee.io.loader"
local manifests = require "perigee.io.manifest"
local picture = require "perigee.io.picture"
local pictures = require "perigee.io.pictures"
local png = require "perigee.io.png"
local tables = require "perigee.base.tables"
local work = require "perigee.prepare.work"

local C = core.C
local M = {}

local BATCH = 16

--- What the list of pictures and labels is, in eight digits.
local function digest(set)
  local crc = 0
  for k, name in ipairs(set.names) do
    local text = ("%s\t%s\n"):format(name, set.labels and set.labels[k] or "-")
    crc = C.pg_crc32(crc, text, #text)
  end
  return ("%08x"):format(crc)
end

--- Threads that decode and crop the pictures, in their order.
local function cropped(set, size, workers)
  return loader.new {
    count = #set.names, batch = BATCH, fields = { { name = "images", dtype = "uint8", shape = { size, size, 3 } } },
    sources = { images = tables.merged(pictures.source(set), { resize = "crop" }) }, shuffle = false,
    threads = workers, depth = 4,
  }
end

--- One picture of a batch that could not be read as a whole; nil and the reason where it is the one.
local function alone(set, index, size)
  local fine, result = pcall(function()
    local name = set.names[index]
    local whole = set.folder and picture.load(set.folder .. "/" .. name)
      or picture.decode(set.source .. ": " .. name, set.archive:read(name))
    return picture.centre_crop(whole, size)
  end)
  if fine then return result end
  if core.last_status ~= C.PG_ERROR_FORMAT or not failure.is_users(result) then error(result, 0) end
  return nil, result
end

--- The pictures of a batch: a function of their numbers.
local function batch_of(self, step)
  local fine, batch = pcall(function()
    if self.loader.step ~= step - 1 then self.loader:seek(step) end
    return self.loader:next()
  end)
  if fine then return function(number) return batch.images:select(1, number - step * BATCH + 1) end end
  local skippable = core.last_status == C.PG_ERROR_FORMAT and failure.is_users(batch)
  if not self.skip then error(skippable and batch .. " (--skip leaves such pictures out)" or batch, 0) end
  self.loader.step = -2 -- it stays at the batch: seek next time
  return function(number) return alone(self.set, number + 1, self.size) end
end

--- Writes the files from number `first` to the end of its batch; their lines.
local function write_batch(self, first)
  local step = math.floor(first / BATCH)
  local pixels, lines = batch_of(self, step), {}
  for number = first, math.min((step + 1) * BATCH, #self.set.names) - 1 do
    local line = { name = self.set.names[number + 1], label = self.set.labels and self.set.labels[number + 1] }
    local image, reason = pixels(number)
    if image then
      local path = self.layout.images .. "/" .. self.layout.image_name(number)
      self.make_folder(path)
      line.crc, line.bytes = work.place(path, function(w) png.append(w, image) end)
    else
      line.reason = reason
      self.progress:line("left out: %s", reason)
    end
    lines[#lines + 1] = line
  end
  return lines
end

--- Makes the pictures' files. Returns their manifest.
---@param o perigee.PrepareOptions
---@param set perigee.Pictures
---@param layout perigee.PrepareLayout
---@return perigee.Manifest
function M.run(o, set, layout)
  local folder, path = layout.images, layout.images_manifest
  if files.exists(folder) and not manifests.about(path) and #files.list(folder) > 0 then
    core.fail("%s is there, but not %s, which would say how it was made; choose another folder", folder, path)
  end
  files.make_folder(folder)
  local manifest = manifests.open(path, { kind = "pictures", count = #set.names, size = o.size, list = digest(set),
    labels = set.labels ~= nil })
  if manifest:is_whole() then return manifest end
  local self = { set = set, size = o.size, skip = o.skip, layout = layout, progress = o.progress,
    make_folder = work.folders(), loader = cropped(set, o.size, o.workers) }
  work.run { folder = folder, manifest = manifest, what = "pictures", bytes = 3 * o.size ^ 2 + 4096,
    progress = o.progress, batch = function(first) return write_batch(self, first) end }
  self.loader:close()
  return manifest
end

return M
