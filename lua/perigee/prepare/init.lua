--- `perigee prepare`: pictures of any size to what recipes read, in REPA's layout (prepare/layout.lua).
local encoders = require "perigee.prepare.encoder"
local files = require "perigee.io.files"
local gather = require("perigee.io.pictures").gather
local latents = require "perigee.prepare.latents"
local layouts = require "perigee.prepare.layout"
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
function M.with_lock(dest, body)
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

--- Prepares a folder in REPA's layout, or goes on where an earlier call was stopped.
---@param o perigee.PrepareOptions
function M.run(o)
  if o.vae then encoders.check(o.vae, o.size) end -- before the hours that the pictures may take
  M.with_lock(o.dest, function()
    local set, layout = gather(o.source), layouts.repa(o.dest)
    o.progress:line("%s: %d pictures%s%s", o.source, #set.names, set.classes
      and (" of %d classes"):format(#set.classes) or set.labels and ", labels of dataset.json" or ", no labels",
      #set.left_out > 0 and ("; %d other files, %s"):format(#set.left_out, set.left_out[1]
        .. (#set.left_out > 1 and ", ..." or "")) or "")
    local images = pictures.run(o, set, layout)
    layouts.write_labels(layout.images, images, layout.image_name)
    local there, left_out = count_of(images)
    o.progress:line("%s: %d pictures of %dx%d%s", layout.images, there, o.size, o.size,
      left_out > 0 and (", %d left out (%s says why)"):format(left_out, images.path) or "")
    if not o.vae then return end
    local encoded = latents.run(o, images, layout)
    layouts.write_labels(layout.latents, encoded, layout.latent_name)
    if o.flips then layouts.write_labels(layout.mirrored, encoded, layout.latent_name) end
    o.progress:line("%s: latents of %d channels, %dx%d%s", layout.latents, encoded.about.channels,
      encoded.about.side, encoded.about.side, o.flips and "; those of mirror images in " .. layout.mirrored or "")
  end)
end

return M
