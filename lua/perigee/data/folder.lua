--- A folder of pictures (PNG, JPEG, WebP) with a folder a class; the classes' names, sorted, are labels 0, 1, 2, ...
--- Or a zip or tar archive of such folders, which is read where it lies; its labels may also be those of a dataset.json
--- in it.
---
---   pg.data.folder { dir = "pictures", classes = 5, size = 64, batch = 32, flip = true }
---   pg.data.folder { dir = "pictures.zip", classes = 5, size = 64, batch = 32 }
---
--- Pictures of another size are scaled until their shorter side is `size` and cropped at the centre, or, with
--- resize = false, are errors; resize = "adm" crops as `perigee prepare` does. Threads decode them while the step
--- before is computed.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local pictures = require "perigee.io.pictures"

---@class perigee.FolderOptions : perigee.DatasetOptions
---@field dir string        or an archive's path
---@field classes integer
---@field size integer      side of the pictures that the student sees
---@field resize? boolean|"adm"  default true
---@field name? string

---@class perigee.data
---@field folder fun(options: perigee.FolderOptions): perigee.Dataset

--- Names, labels and where the pictures are.
local function from_folder(dir)
  local names, labels, classes, left_out = pictures.scan(dir)
  return { folder = dir, names = names }, labels, classes, left_out
end

local function from_archive(path)
  local set = pictures.gather(path)
  if not set.labels then
    core.fail("data.folder: %s says no classes: neither by folders, one a class, nor by a dataset.json", path)
  end
  return pictures.source(set), set.labels, set.classes, set.left_out
end

---@param given perigee.FolderOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.folder", given, dataset.spec {
    dir = "string", classes = "integer", size = "integer", resize = { "boolean|string", true },
    name = { "string", "folder" },
  })
  if type(o.resize) == "string" and o.resize ~= "adm" then
    core.fail("data.folder: resize = \"%s\"; expected true, false or \"adm\"", o.resize)
  end
  return dataset.new {
    name = o.name, classes = o.classes, channels = 3, height = o.size, width = o.size, batch = o.batch, flip = o.flip,
    crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth, image_size = o.size,
    find = function(self)
      local kind = files.kind(o.dir)
      if not kind then core.fail("data.folder: no folder %s", o.dir) end
      local images, labels, classes, left_out = (kind == "directory" and from_folder or from_archive)(o.dir)
      if classes and #classes ~= o.classes then
        core.fail("data.folder: %s has pictures of %d classes (%s); the recipe says %d", o.dir, #classes,
          table.concat(classes, ", ", 1, math.min(#classes, 12)), o.classes)
      end
      self.class_names, self.left_out = classes, left_out
      images.resize, images.augment = o.resize == "adm" and "crop" or o.resize, true
      return #images.names, { images = images, labels = { tensor = dataset.labels(o.dir, labels, o.classes) } }
    end,
  }
end
