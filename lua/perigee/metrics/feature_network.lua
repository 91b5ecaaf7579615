--- Networks whose features of pictures are compared. The features are kept in a file while they are computed: 50,000
--- pictures need no memory, and what an interrupted evaluation has is taken up again. A record is a picture's features
--- and its spatial ones, float32.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local feature_set = require "perigee.metrics.feature_set"
local files = require "perigee.io.files"
local hub_positions = require "perigee.metrics.hub_positions"
local models = require "perigee.models"
local npz = require "perigee.io.npz"
local teacher = require "perigee.teacher"

local ops, tensor = core.ops, core.tensor
local M = {}

local BATCH = 25

---@class perigee.FeatureNetwork
---@field name string      as results call it: "inception adm"
---@field key string       what decides its features: its weights and how it sees pictures
---@field device string
---@field width integer    of its features
---@field spatial integer  of its spatial features; 0: it has none
---@field model perigee.Module
---@field outputs fun(images: perigee.Value): perigee.Value, perigee.Value?  of float32 [B,3,H,W] in 0 ... 255
---@field logits? fun(self: perigee.FeatureNetwork, rows: perigee.Tensor): perigee.Tensor  of features [n,D], on the
---  CPU: the network scores classes
local Network = {}
Network.__index = Network

--- The digest of a file of weights.
local function digest(path) return ("%.0f %08x"):format(files.size(path), files.crc32(path, 0, files.size(path))) end

--- FID's network with the weights of a file, and how it sees pictures.
---@param path string
---@param options? { convention?: string, device?: string }
---@return perigee.FeatureNetwork
function M.inception(path, options)
  local convention, device = options and options.convention or "adm", options and options.device or "cpu"
  local model = models.inception { weights = path }
  model:load { dtype = "float32", device = device, purpose = "teacher" }
  local self = setmetatable({ name = "inception " .. convention, device = device, width = 2048, spatial = 2023,
    model = model, key = ("inception %s %s"):format(digest(path), convention) }, Network)
  function self.outputs(images) return model(model:preprocess(images, convention)) end
  function self.logits(_, rows)
    return tensor.tidy(function() return model:logits(rows:to(device)):to "cpu" end)
  end
  return self
end

--- A vision transformer whose class token after the last norm is the feature, with pictures resized to 224 by an
--- antialiased bicubic filter, without rounding: FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675) as edm2 computes it,
--- with dinov2_vit_l_14.
---@param text string  MODEL:FILE, of pg.models
---@param options? { device?: string }
---@return perigee.FeatureNetwork
function M.encoder(text, options)
  local name, path = text:match "^([%w_]+):(.+)$"
  if not name then core_ffi.fail("--encoder %s: expected MODEL:FILE, such as dinov2_vit_l_14:FILE", text) end
  local device = options and options.device or "cpu"
  local model = models[name] { weights = path, image = 224, resize = { mode = "bicubic", antialias = true } }
  if not model.features then core_ffi.fail("--encoder %s: a %s is not an encoder: it has no features", text, name) end
  model:load { dtype = "float32", device = device, purpose = "teacher" }
  if name:match "^dinov2" and model.stored[1] ~= model.grid[1] then -- as its own code does, not as REPA's recipe
    model.position = tensor.outlive(hub_positions.resample, model.position, model.stored, model.grid):to(device)
    model.stored = model.grid
  end
  local self = setmetatable({ name = "fd " .. name, device = device, width = model.width, spatial = 0, model = model,
    key = ("%s %s"):format(name, digest(path)) }, Network)
  function self.outputs(images)
    local _, extra = model:features(images * (1 / 255), { class_token = true })
    return extra.class_token
  end
  return self
end

--- The program for `batch` pictures of one size.
local function compile(self, batch, height, width)
  local p = core.program.new "features"
  local pictures = p:input("pictures", { batch, height, width, 3 }, "uint8")
  local features, spatial = p:trace(function(x)
    return self.outputs(ops.images(x, { scale = 1, offset = 0, dtype = "float32" }))
  end, pictures)
  local list = { { name = "features", value = features } }
  if spatial then list[2] = { name = "spatial", value = spatial } end
  return core.executable.compile(p, list, { purpose = "signal", device = self.device })
end

--- Features of at most `batch` pictures, uint8 [n,H,W,3]: float32 [n,D]. The program sees a whole batch.
local function features_of(executable, batch, images)
  local n = images.shape[1]
  if n < batch then
    local black = ops.fill({ batch - n, unpack(images.shape, 2) }, { value = 0, dtype = "uint8" })
    images = ops.concat({ images, black }, 1)
  end
  local out = executable:run { pictures = images:to(executable.plan.device) }
  local parts = { out.features:to "cpu", out.spatial and out.spatial:to "cpu" }
  return ops.concat(parts, 2):narrow(1, 1, n):contiguous()
end

---@class perigee.PictureFeatures
---@field features perigee.FeatureSet
---@field spatial? perigee.FeatureSet
---@field path string

local function opened(self, path, name)
  local header = npz.header(path, "arr_0")
  return { path = path, features = feature_set.in_file(path, header, 1, self.width, name),
    spatial = self.spatial > 0 and feature_set.in_file(path, header, self.width + 1, self.spatial, name) or nil }
end

--- Where features are kept: in the cache, by network and pictures.
local function place_of(self, source)
  local folder = teacher.trusted_cache() .. "/features"
  files.make_folder(folder)
  return ("%s/%s.npz"):format(folder, teacher.digest(self.key .. "\n" .. source.key))
end

--- Features of all pictures of a source. `progress(done)` is told how many are there. They lie in the cache, where
--- those that are there count; or at `path`, where nothing that is there does.
---@param source perigee.PictureSource
---@param progress? fun(done: integer)
---@param path? string
---@return perigee.PictureFeatures
function Network:features(source, progress, path)
  if path then
    files.remove(path)
    files.remove(path .. ".part")
  end
  path = path or place_of(self, source)
  if files.exists(path) and npz.header(path, "arr_0").shape[1] == source.count then
    return opened(self, path, source.name)
  end
  local writer = npz.writer(path, { self.width + self.spatial }, "float32")
  local batch = math.min(BATCH, source.count)
  local executable = compile(self, batch, source.height, source.width)
  local fine, message = pcall(function()
    if progress then progress(writer.count) end
    source:each(writer.count + 1, batch, function(images)
      writer:append(features_of(executable, batch, images))
      if progress then progress(writer.count) end
    end)
  end)
  executable:free()
  if not fine then
    writer:suspend()
    error(message, 0)
  end
  writer:finish()
  return opened(self, path, source.name)
end

function Network:free() self.model:dematerialise() end

--- Removes a set's file.
---@param set perigee.PictureFeatures
function M.forget(set) files.remove(set.path) end

return M
