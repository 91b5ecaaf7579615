--- `perigee prepare`: pictures of any size to what recipes read, in REPA's layout (prepare/layout.lua).
local files = require "perigee.io.files"
local layout = require "perigee.prepare.layout"
local latents = require "perigee.prepare.latents"
local pictures = require "perigee.prepare.pictures"

local M = {}

---@class perigee.PrepareOptions
---@field source string       a folder or archive of pictures
---@field dest string
---@field size integer
---@field vae? string         a weights file: latents too
---@field flips? boolean      latents of the mirror images too
---@field skip? boolean       leave out pictures that can't be read
---@field workers integer     threads that read pictures
---@field batch integer       pictures that are encoded at once
---@field device string       that encodes
---@field progress perigee.Progress

--- Holds a folder against other processes that prepare it while body() runs.
local function with_lock(dest, body)
  files.make_folder(dest)
  local lock, holder = files.lock(dest .. "/prepare.lock")
  if not lock then error(("%s: process %d prepares it now"):format(dest, holder), 0) end
  files.sweep(dest)
  local results = { pcall(body) }
  lock:free()
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2)
end

local function count_of(manifest)
  local there, left_out = 0, 0
  for _, line in ipairs(manifest.lines) do
    if line.crc then there = there + 1 else left_out = left_out + 1 end
  end
  return there, left_out
end

--- Prepares a folder, or goes on where an earlier call was stopped.
---@param o perigee.PrepareOptions
function M.run(o)
  return with_lock(o.dest, function()
    local images = pictures.run { source = o.source, dest = o.dest, size = o.size, workers = o.workers,
      skip = o.skip or false, progress = o.progress }
    local there, left_out = count_of(images)
    o.progress:line("%s/%s: %d pictures of %dx%d%s", o.dest, layout.images, there, o.size, o.size,
      left_out > 0 and (", %d left out (%s says why)"):format(left_out, images.path) or "")
    if o.vae then
      local manifest = latents.run({ dest = o.dest, vae = o.vae, mirrored = o.flips or false, batch = o.batch,
        workers = o.workers, device = o.device, progress = o.progress }, images)
      o.progress:line("%s/%s: latents of %d channels, %dx%d%s", o.dest, layout.latents, manifest.about.channels,
        manifest.about.side, manifest.about.side, o.flips and "; those of mirror images in " .. layout.mirrored or "")
    end
  end)
end

return M
