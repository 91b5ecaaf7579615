--- `perigee prepare --check`: a prepared folder held against its manifests, file by file; one of another tool against
--- what its layout promises.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local latents = require "perigee.io.latents"
local layouts = require "perigee.prepare.layout"
local manifests = require "perigee.io.manifest"
local npy = require "perigee.io.npy"
local picture = require "perigee.io.picture"
local tensor = require "perigee.core.tensor"

local M = {}

local NAMED = 20 -- problems that are printed

--- Problems, counted; the first are printed.
local function report(progress)
  local found = {}
  return found, function(format, ...)
    found[#found + 1] = format:format(...)
    if #found <= NAMED then progress:line("%s", found[#found]) end
  end
end

--- The files in the folders of a folder that are not in `known`.
local function unknown_files(folder, known, problem)
  for _, part in ipairs(files.exists(folder) and files.list(folder) or {}) do
    local path = folder .. "/" .. part
    if files.kind(path) == "directory" then
      for _, name in ipairs(files.list(path)) do
        if not known[part .. "/" .. name] then problem("%s/%s: not in the manifest", path, name) end
      end
    elseif part ~= "dataset.json" then problem("%s: not in the manifest", path) end
  end
end

local function check_file(path, bytes, crc, problem)
  if not files.exists(path) then return problem("%s: it is missing", path) end
  local size = files.size(path)
  if size ~= bytes then return problem("%s: it has %d bytes, its manifest says %d", path, size, bytes) end
  local found = ("%08x"):format(files.crc32(path, 0, size))
  if found ~= crc then problem("%s: its bytes have the CRC-32 %s, its manifest says %s", path, found, crc) end
end

--- dataset.json, against a manifest.
local function check_labels(folder, manifest, name_of, problem)
  local path = folder .. "/dataset.json"
  if not files.exists(path) then return problem("%s: it is missing", path) end
  local fine, listed = pcall(json.read, path)
  if not fine then return problem("%s", listed) end
  local by_name, labels = {}, type(listed.labels) == "table" and listed.labels ~= json.null and listed.labels or {}
  for _, pair in ipairs(labels) do by_name[pair[1]] = pair[2] end
  for k, line in ipairs(manifest.lines) do
    if line.crc and by_name[name_of(k - 1)] ~= line.label then
      return problem("%s: %s has the label %s, its manifest says %s", path, name_of(k - 1),
        tostring(by_name[name_of(k - 1)]), tostring(line.label))
    end
  end
end

--- One folder of files against its manifest; `sum` is the column of their sums.
local function check_folder(folder, manifest, name_of, sum, progress, problem)
  local known = {}
  for k, line in ipairs(manifest.lines) do
    if line[sum] then
      local name = name_of(k - 1)
      known[name] = true
      check_file(folder .. "/" .. name, line.bytes, line[sum], problem)
    end
    progress:follow(("%s %d/%d"):format(folder, k, #manifest.lines), k / #manifest.lines)
  end
  unknown_files(folder, known, problem)
  check_labels(folder, manifest, name_of, problem)
end

local function check_whole(manifest, problem)
  if not manifest:is_whole() then
    problem("%s: it lists %d of %d; the same command as before goes on from there", manifest.path, #manifest.lines,
      manifest.about.count)
  end
end

-- ---- a folder of another tool ---------------------------------------------------------------------------------

local function names_below(folder, pattern)
  local names = {}
  for _, part in ipairs(files.list(folder)) do
    if part:match "^%d+$" then
      for _, name in ipairs(files.list(folder .. "/" .. part)) do
        if name:match(pattern) then names[#names + 1] = part .. "/" .. name end
      end
    end
  end
  return names
end

local function read_all(folder, names, read, progress, problem)
  local shape
  for k, name in ipairs(names) do
    tensor.tidy(function()
      local fine, one = pcall(read, folder .. "/" .. name)
      local found = fine and ("%s %s"):format(one.dtype, core.shape_text(one.shape))
      if not fine then problem("%s", one)
      elseif shape and found ~= shape then problem("%s/%s: %s, the first one is %s", folder, name, found, shape) end
      shape = shape or found or nil
    end)
    progress:follow(("%s %d/%d"):format(folder, k, #names), k / #names)
  end
  return shape
end

local function check_foreign(dest, progress, problem)
  local layout = layouts.repa(dest)
  local images, encoded = layout.images, layout.latents
  local pictures = files.exists(images) and names_below(images, "^img%d+%.png$") or {}
  local moments = files.exists(encoded) and names_below(encoded, "^img%-mean%-std%-%d+%.npy$") or {}
  if #pictures + #moments == 0 then
    core.fail("%s: neither images.manifest nor images/ddddd/img*.png nor vae-sd/ddddd/img-mean-std-*.npy in it", dest)
  end
  progress:line("%s: without a manifest; what its layout promises is checked", dest)
  if #pictures > 0 and #moments > 0 and #pictures ~= #moments then
    problem("%s: %d pictures and %d latents", dest, #pictures, #moments)
  end
  if #pictures > 0 then
    progress:line("%s: %s", images, read_all(images, pictures, picture.load, progress, problem) or "nothing readable")
  end
  if #moments == 0 then return end
  progress:line("%s: %s", encoded, read_all(encoded, moments, npy.header, progress, problem) or "nothing readable")
  local fine, means = pcall(function()
    return latents.means(encoded, moments, npy.header(encoded .. "/" .. moments[1]).shape[1] / 2)
  end)
  if not fine then return problem("%s", means) end
  progress:line("%s: means of its channels %s%s", encoded, ("%.2f "):rep(#means):format(unpack(means)),
    latents.are_edm2(means) and "-- these are edm2's latents, of pictures in [0, 1], not REPA's" or "")
end

-- ---- all ----------------------------------------------------------------------------------------------------

--- Holds a layout's files against their manifests.
---@param layout perigee.PrepareLayout
local function check_own(layout, images, progress, problem)
  check_whole(images, problem)
  check_folder(layout.images, images, layout.image_name, "crc", progress, problem)
  local encoded = manifests.read(layout.latents_manifest)
  if not encoded then return end
  check_whole(encoded, problem)
  if encoded.about.list ~= images.about.list then problem("%s is of other pictures", encoded.path) end
  check_folder(layout.latents, encoded, layout.latent_name, "crc", progress, problem)
  if encoded.about.mirrored then
    check_folder(layout.mirrored, encoded, layout.latent_name, "mirrored", progress, problem)
  end
end

--- Checks a folder and changes nothing. Returns what is wrong.
---@param dest string
---@param progress perigee.Progress
---@return string[]
function M.run(dest, progress)
  local found, problem = report(progress)
  local layout = layouts.repa(dest)
  local images = manifests.read(layout.images_manifest)
  if images then check_own(layout, images, progress, problem) else check_foreign(dest, progress, problem) end
  if #found > NAMED then progress:line("... and %d more", #found - NAMED) end
  progress:line(#found == 0 and "%s: all is as it should be" or "%s: %d problem%s", dest, #found,
    #found == 1 and "" or "s")
  return found
end

return M
