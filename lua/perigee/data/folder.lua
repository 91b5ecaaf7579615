--- A folder of PNG files with a folder a class; the classes' names, sorted, are labels 0, 1, 2, ...
---
---   pg.data.folder { dir = "pictures", classes = 5, size = 64, batch = 32, flip = true }
---
--- Pictures of another size are scaled until their shorter side is `size` and cropped at the centre, or, with
--- resize = false, are errors. Threads decode them while the step before is computed.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local pictures = require "perigee.io.pictures"

---@class perigee.FolderOptions : perigee.DatasetOptions
---@field dir string
---@field classes integer
---@field size integer      side of the pictures that the student sees
---@field resize? boolean   default true
---@field name? string

---@class perigee.data
---@field folder fun(options: perigee.FolderOptions): perigee.Dataset

---@param given perigee.FolderOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.folder", given, dataset.spec {
    dir = "string", classes = "integer", size = "integer", resize = { "boolean", true }, name = { "string", "folder" },
  })
  return dataset.new {
    name = o.name, classes = o.classes, channels = 3, height = o.size, width = o.size, batch = o.batch, flip = o.flip,
    crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth, image_size = o.size,
    find = function(self)
      if files.kind(o.dir) ~= "directory" then core.fail("data.folder: no folder %s", o.dir) end
      local names, labels, classes, left_out = pictures.scan(o.dir)
      if #classes ~= o.classes then
        core.fail("data.folder: %s has pictures of %d classes (%s); the recipe says %d", o.dir, #classes,
          table.concat(classes, ", ", 1, math.min(#classes, 12)), o.classes)
      end
      self.class_names, self.left_out = classes, left_out
      return #names, {
        images = { folder = o.dir, names = names, resize = o.resize, augment = true },
        labels = { tensor = dataset.labels(o.dir, labels, o.classes) },
      }
    end,
  }
end
