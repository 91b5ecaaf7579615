--- Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): 28×28 grey pictures of clothes, 10 classes; 60,000 to
--- train, 10,000 to test. Debian and Ubuntu package it whole, as IDX files; a folder of such files, packed by gzip or
--- not, may also be given. The files of MNIST and others of its form have the same names.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local idx = require "perigee.io.idx"

local PACKAGED = "/usr/share/datasets/fashion-mnist"
local CLASSES = { "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot" }
local SIDE = 28
local PREFIX = { train = "train", test = "t10k" }

--- The path of a split's "images-idx3" or "labels-idx1" in a folder.
local function find_file(dir, split, part)
  local name = ("%s-%s-ubyte"):format(PREFIX[split], part)
  for _, ending in ipairs { ".gz", "" } do
    if files.exists(dir .. "/" .. name .. ending) then return dir .. "/" .. name .. ending end
  end
  if dir ~= PACKAGED then core.fail("data.fashion_mnist: %s has no %s, packed as .gz or not", dir, name) end
  core.fail("data.fashion_mnist: %s/%s.gz is missing; install it: sudo apt-get install dataset-fashion-mnist "
    .. "(in Debian's main, Ubuntu's universe), or give the folder of the four IDX files as 'dir'", dir, name)
end

local function find(self, o)
  local images_path, labels_path = find_file(o.dir, o.split, "images-idx3"), find_file(o.dir, o.split, "labels-idx1")
  local images, labels = idx.load(images_path, { purpose = "data" }), idx.load(labels_path)
  local s = images.shape
  if #s ~= 3 or s[2] ~= SIDE or s[3] ~= SIDE then
    core.fail("%s: %s; expected [n,28,28]", images_path, core.shape_text(s))
  end
  if #labels.shape ~= 1 or labels.shape[1] ~= s[1] then
    core.fail("%s: %s labels for %d pictures", labels_path, core.shape_text(labels.shape), s[1])
  end
  self.class_names = CLASSES
  return s[1], {
    images = { tensor = images:reshape { s[1], SIDE, SIDE, 1 }, augment = true },
    labels = { tensor = dataset.labels(labels_path, labels, #CLASSES) },
  }
end

---@class perigee.FashionMnistOptions : perigee.DatasetOptions
---@field dir? string            default: where the package puts it
---@field split? "train"|"test"  default "train"

---@class perigee.data
---@field fashion_mnist fun(options: perigee.FashionMnistOptions): perigee.Dataset

---@param given perigee.FashionMnistOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.fashion_mnist", given, dataset.spec {
    dir = { "string", PACKAGED }, split = { "string", "train", choices = { "train", "test" } },
  })
  return dataset.new {
    name = "fashion-mnist", classes = #CLASSES, channels = 1, height = SIDE, width = SIDE, batch = o.batch,
    flip = o.flip, crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    find = function(self) return find(self, o) end,
  }
end
