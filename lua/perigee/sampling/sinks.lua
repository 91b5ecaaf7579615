--- Where `perigee sample` puts samples: a grid or a folder of PNGs, an .npz, an .npy. Each sink has `done` (how many
--- samples are there already), take(self, first, images, labels), and finish(self), which returns the path.
local files = require "perigee.io.files"
local grid = require "perigee.sampling.grid"
local json = require "perigee.io.json"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local ops = require "perigee.core.ops"
local png = require "perigee.io.png"

local M = {}

--- A sink that keeps all samples until save(samples) writes them.
local function at_once(path, save)
  local parts = {}
  return {
    done = 0,
    take = function(_, _, images) parts[#parts + 1] = images:clone() end,
    finish = function()
      save(#parts == 1 and parts[1] or ops.concat(parts, 1))
      return path
    end,
  }
end

--- Writes next to the samples on what they depend: the weights by their digest, and the settings. An interrupted set is
--- only taken up by the same. `there`: samples that were made by whatever, if the record is missing.
local function same_settings(path, settings, there)
  local text = json.encode(settings) .. "\n"
  files.sweep(files.split(path))
  if not files.exists(path) then
    if there then
      error(("%s is there, but not %s, which would say of what weights and settings it is; choose another --out, or "
        .. "remove it"):format(there, path), 0)
    end
    return files.write(path, text)
  end
  local before = files.read(path)
  if before ~= text then
    error(("%s says that the samples there were made with other settings or weights:\n  there %s  now   %sremove them "
      .. "or choose another --out"):format(path, before, text), 0)
  end
end

local function png_folder(path, settings)
  files.make_folder(path)
  local function name(k) return ("%s/%06d.png"):format(path, k) end
  local there
  for _, entry in ipairs(files.list(path)) do there = there or entry:match "^%d+%.png$" and path .. "/" .. entry end
  same_settings(path .. "/samples.json", settings, there)
  files.sweep(path)
  local done = 0
  while files.exists(name(done)) do done = done + 1 end
  return {
    done = done,
    take = function(_, first, images)
      for k = 1, images.shape[1] do png.save(name(first + k - 1), images:select(1, k)) end
    end,
    finish = function() return path end,
  }
end

local function archive(path, settings, form)
  if files.exists(path) then error(path .. " is there already; remove it or choose another --out", 0) end
  same_settings(path .. ".json", settings, files.exists(path .. ".part") and path .. ".part")
  local writer = npz.writer(path, form.shape, form.dtype)
  return {
    done = writer.count,
    take = function(_, _, images) writer:append(images) end,
    finish = function()
      writer:finish()
      return path
    end,
  }
end

local FORMS = { png = true, npz = true, npy = true }

--- An error for a path that looks like a file of a kind that isn't written.
local function expect_form(path)
  local ending = path:match "%.(%a%w?%w?%w?)$"
  if not ending or FORMS[ending] or files.kind(path) == "directory" then return end
  error(("--out %s: expected FILE.png, FILE.npz, FILE.npy, or a folder (%s/ for one of that name)"):format(path,
    path), 0)
end

--- The sink for a path; what cannot be written there is an error before samples are drawn.
---@param path string
---@param form perigee.SampleForm
---@param options { count: integer, columns?: integer, settings: table }  settings: what decides the samples
function M.open(path, form, options)
  expect_form(path)
  local folder, name = files.split(path)
  files.make_folder(folder)
  files.sweep(folder, name)
  if path:match "%.npz$" then return archive(path, options.settings, form) end
  if path:match "%.npy$" then return at_once(path, function(samples) npy.save(path, samples) end) end
  if not form.pixels then
    error(("%s: the samples are latents [%s], which are no pictures; give --out FILE.npy or FILE.npz"):format(path,
      table.concat(form.shape, ",")), 0)
  end
  if not path:match "%.png$" then return png_folder(path, options.settings) end
  grid.check(path, options.count, form.shape, options.columns)
  return at_once(path, function(samples) png.save(path, grid.join(samples, options.columns)) end)
end

return M
