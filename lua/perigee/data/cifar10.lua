--- CIFAR-10 (Krizhevsky 2009): 32x32 RGB, 10 classes. The folder holds one of
---   - cifar10-SPLIT*.npy, uint8 [n,32,32,3], and next to it the same name with -labels.npy, [n]
---   - the official binary batches, data_batch_1.bin ... data_batch_5.bin and test_batch.bin (or their folder,
---     cifar-10-batches-bin): 10,000 records of a label byte and 3,072 bytes, all red, then all green, then all blue
---   - PNG files, a folder a class, below SPLIT/ or, for the training split, in the folder itself.
local ffi = require "ffi"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local npy = require "perigee.io.npy"
local pictures = require "perigee.io.pictures"
local tensor = require "perigee.core.tensor"

local CLASSES = { "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" }
local SIDE = 32
local PLANE = SIDE * SIDE
local RECORD = 1 + 3 * PLANE

--- The .npy file of a split in a folder, or nil.
local function find_npy(dir, split)
  local found = {}
  for _, name in ipairs(files.list(dir)) do
    local is_split = name:match("^cifar10%-" .. split .. ".*%.npy$")
    if is_split and not name:match "%-labels%.npy$" then found[#found + 1] = name end
  end
  if #found > 1 then
    core.fail("data.cifar10: %s has several files for the split '%s': %s", dir, split, table.concat(found, ", "))
  end
  return found[1] and dir .. "/" .. found[1]
end

local function from_npy(path)
  local header, labels = npy.header(path), path:gsub("%.npy$", "-labels.npy")
  local shape = header.shape
  if header.dtype ~= "uint8" or #shape ~= 4 or shape[2] ~= SIDE or shape[3] ~= SIDE or shape[4] ~= 3 then
    core.fail("%s: %s %s; expected uint8 [n,32,32,3]", path, header.dtype, core.shape_text(shape))
  end
  return shape[1], {
    images = { tensor = npy.load(path, nil, nil, { purpose = "data" }), augment = true },
    labels = { tensor = dataset.labels(labels, npy.load(labels), #CLASSES) },
  }
end

local function batch_names(split)
  if split == "test" then return { "test_batch.bin" } end
  local names = {}
  for k = 1, 5 do names[k] = ("data_batch_%d.bin"):format(k) end
  return names
end

--- The folder of the binary batches, or nil.
local function find_batches(dir, split)
  for _, folder in ipairs { dir, dir .. "/cifar-10-batches-bin" } do
    if files.exists(folder .. "/" .. batch_names(split)[1]) then return folder end
  end
end

--- Planar records to pixels.
local function unpack_records(bytes, count, pixels, labels)
  for n = 0, count - 1 do
    local record, out = bytes + n * RECORD, pixels + n * 3 * PLANE
    labels[n] = record[0]
    for k = 0, PLANE - 1 do
      out[3 * k], out[3 * k + 1], out[3 * k + 2] = record[1 + k], record[1 + PLANE + k], record[1 + 2 * PLANE + k]
    end
  end
end

local function from_batches(folder, split)
  local counts, total, names = {}, 0, batch_names(split)
  for k, name in ipairs(names) do
    local size = files.size(folder .. "/" .. name)
    if size == 0 or size % RECORD ~= 0 then
      core.fail("%s/%s: %d bytes, which are not records of %d", folder, name, size, RECORD)
    end
    counts[k] = size / RECORD
    total = total + counts[k]
  end
  local images = tensor.empty({ total, SIDE, SIDE, 3 }, "uint8", { purpose = "data" })
  local labels = ffi.new("int64_t[?]", total)
  local at = 0
  for k, name in ipairs(names) do
    local text = files.read(folder .. "/" .. name)
    unpack_records(ffi.cast("const uint8_t *", text), counts[k], images:pointer() + at * 3 * PLANE, labels + at)
    at = at + counts[k]
  end
  return total, {
    images = { tensor = images, augment = true },
    labels = { tensor = dataset.labels(folder, tensor.tensor(labels, { total }, "int64"), #CLASSES) },
  }
end

local function from_pictures(self, folder)
  local names, labels, classes, left_out = pictures.scan(folder)
  if table.concat(classes, " ") ~= table.concat(CLASSES, " ") then
    core.fail("data.cifar10: the folders with pictures in %s are %s; expected %s", folder,
      table.concat(classes, ", ", 1, math.min(#classes, 12)), table.concat(CLASSES, ", "))
  end
  self.left_out = left_out
  return #names, {
    images = { folder = folder, names = names, augment = true },
    labels = { tensor = dataset.labels(folder, labels, #CLASSES) },
  }
end

local function has_class_folders(folder)
  return files.kind(folder .. "/" .. CLASSES[1]) == "directory"
end

local function find(self, o)
  if files.kind(o.dir) ~= "directory" then core.fail("data.cifar10: no folder %s", o.dir) end
  local path = find_npy(o.dir, o.split)
  if path then return from_npy(path) end
  local batches = find_batches(o.dir, o.split)
  if batches then return from_batches(batches, o.split) end
  for _, folder in ipairs { o.dir .. "/" .. o.split, o.split == "train" and o.dir or nil } do
    if has_class_folders(folder) then return from_pictures(self, folder) end
  end
  core.fail("data.cifar10: %s has no split '%s': neither cifar10-%s*.npy nor %s nor folders of PNG files (%s, ...)",
    o.dir, o.split, o.split, batch_names(o.split)[1], CLASSES[1])
end

---@class perigee.Cifar10Options : perigee.DatasetOptions
---@field dir string
---@field split? "train"|"test"  default "train"

---@class perigee.data
---@field cifar10 fun(options: perigee.Cifar10Options): perigee.Dataset

---@param given perigee.Cifar10Options
---@return perigee.Dataset
return function(given)
  local o = check.options("data.cifar10", given, dataset.spec {
    dir = "string", split = { "string", "train" }, flip = { "boolean", true },
  })
  if o.split ~= "train" and o.split ~= "test" then
    core.fail("data.cifar10: unknown split '%s'; expected train or test", o.split)
  end
  return dataset.new {
    name = "cifar10", classes = #CLASSES, class_names = CLASSES, channels = 3, height = SIDE, width = SIDE,
    batch = o.batch, flip = o.flip, crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    image_size = SIDE,
    find = function(self) return find(self, o) end,
  }
end
