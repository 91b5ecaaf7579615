--- Features of pictures by the Inception network, kept in a file while they are computed: 50,000 pictures need no
--- memory, and what an interrupted evaluation has is taken up again. A record is the 2048 features and the 2023 spatial
--- ones, float32.
local core = require "perigee.core"
local feature_set = require "perigee.metrics.feature_set"
local files = require "perigee.io.files"
local models = require "perigee.models"
local npz = require "perigee.io.npz"
local teacher = require "perigee.teacher"

local ops, tensor = core.ops, core.tensor
local M = {}

local BATCH = 25
local FEATURES, SPATIAL = 2048, 2023

---@class perigee.InceptionNetwork
---@field model perigee.Inception
---@field convention string
---@field device string
---@field key string   what decides its features: the weights' digest and the convention
local Network = {}
Network.__index = Network

--- The network with the weights of a file, and how it sees pictures.
---@param path string
---@param options? { convention?: string, device?: string }
---@return perigee.InceptionNetwork
function M.open(path, options)
  local convention, device = options and options.convention or "adm", options and options.device or "cpu"
  local model = models.inception { weights = path }
  model:load { dtype = "float32", device = device, purpose = "teacher" }
  return setmetatable({ model = model, convention = convention, device = device,
    key = ("inception %.0f %08x %s"):format(files.size(path), files.crc32(path, 0, files.size(path)), convention) },
    Network)
end

--- The program for `batch` pictures of one size.
local function compile(self, batch, height, width)
  local p = core.program.new "inception"
  local pictures = p:input("pictures", { batch, height, width, 3 }, "uint8")
  local features, spatial = p:trace(function(x)
    local images = ops.images(x, { scale = 1, offset = 0, dtype = "float32" })
    return self.model(self.model:preprocess(images, self.convention))
  end, pictures)
  return core.executable.compile(p, { { name = "features", value = features }, { name = "spatial", value = spatial } },
    { purpose = "signal", device = self.device })
end

--- Features of at most `batch` pictures, uint8 [n,H,W,3]: float32 [n,4071]. The program sees a whole batch.
local function features_of(executable, batch, images)
  local n = images.shape[1]
  if n < batch then
    local black = ops.fill({ batch - n, unpack(images.shape, 2) }, { value = 0, dtype = "uint8" })
    images = ops.concat({ images, black }, 1)
  end
  local out = executable:run { pictures = images:to(executable.plan.device) }
  return ops.concat({ out.features:to "cpu", out.spatial:to "cpu" }, 2):narrow(1, 1, n):contiguous()
end

---@class perigee.InceptionFeatures
---@field features perigee.FeatureSet
---@field spatial perigee.FeatureSet
---@field path string

local function opened(path, name)
  local header = npz.header(path, "arr_0")
  return { path = path, features = feature_set.in_file(path, header, 1, FEATURES, name),
    spatial = feature_set.in_file(path, header, FEATURES + 1, SPATIAL, name) }
end

--- Where features are kept: in the cache, by network and pictures.
local function place_of(self, source)
  local folder = teacher.trusted_cache() .. "/inception"
  files.make_folder(folder)
  return ("%s/%s.npz"):format(folder, teacher.digest(self.key .. "\n" .. source.key))
end

--- Features of all pictures of a source. `progress(done)` is told how many are there. They lie in the cache, where
--- those that are there count; or at `path`, where nothing that is there does.
---@param source perigee.PictureSource
---@param progress? fun(done: integer)
---@param path? string
---@return perigee.InceptionFeatures
function Network:features(source, progress, path)
  if path then
    files.remove(path)
    files.remove(path .. ".part")
  end
  path = path or place_of(self, source)
  if files.exists(path) and npz.header(path, "arr_0").shape[1] == source.count then
    return opened(path, source.name)
  end
  local writer = npz.writer(path, { FEATURES + SPATIAL }, "float32")
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
  return opened(path, source.name)
end

function Network:free() self.model:dematerialise() end

--- Removes a set's file.
---@param set perigee.InceptionFeatures
function M.forget(set) files.remove(set.path) end

--- Logits of features [n,2048] for the Inception score, on the CPU: [n,1008].
function Network:logits(rows)
  return tensor.tidy(function() return self.model:logits(rows:to(self.device)):to "cpu" end)
end

return M
