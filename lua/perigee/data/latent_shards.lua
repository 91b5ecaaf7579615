--- Latents in safetensors files, as LightningDiT keeps them (VA-VAE's f16d32 of ImageNet and others): each file holds
--- `latents` [n,C,h,w], `labels` [n] and, for data that flip, `latents_flip`, those of the mirror images. The records
--- are read where they lie. What a student sees is (latent − shift)·scale; by default mean and deviation by channel are
--- those of latents_stats.pt in the folder, {mean, std} [1,C,1,1], so that shift = mean and scale = 1/std.
---
---   pg.data.latent_shards { dir = "imagenet-f16d32", classes = 1000, channels = 32, side = 16, batch = 256 }
local ffi = require "ffi"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local latents = require "perigee.io.latents"
local layout = require "perigee.core.layout"
local ops = require "perigee.core.ops"
local pytorch = require "perigee.io.pytorch"
local safetensors = require "perigee.io.safetensors"
local tensor = require "perigee.core.tensor"

local function fail(format, ...) core.fail("data.latent_shards: " .. format, ...) end

--- The safetensors files of a folder, opened.
local function open_shards(dir)
  local shards = {}
  for _, name in ipairs(files.list(dir)) do
    if name:match "%.safetensors$" then shards[#shards + 1] = safetensors.open(dir .. "/" .. name) end
  end
  if #shards == 0 then fail("%s has no .safetensors files", dir) end
  return shards
end

--- A shard's entry of a name, checked.
local function entry_of(shard, name, o, dtype)
  local entry = shard:info(name)
  local s = entry.shape
  if #s ~= 4 or not layout.same_shape({ unpack(s, 2) }, { o.channels, o.side, o.side }) or entry.stored ~= dtype then
    core.fail("%s: '%s' is %s %s; expected %s [n,%d,%d,%d]", shard.path, name, entry.stored, core.shape_text(s), dtype,
      o.channels, o.side, o.side)
  end
  return entry
end

--- Where the records of one name lie, all shards after another.
local function places_of(shards, name, o, count, dtype)
  local places, at = ffi.new("pg_place[?]", count), 0
  for k, shard in ipairs(shards) do
    local entry = entry_of(shard, name, o, dtype)
    local bytes = entry.bytes / entry.shape[1]
    for n = 0, entry.shape[1] - 1 do
      local place = places[at]
      place.offset, place.packed, place.bytes, place.archive = entry.offset + n * bytes, bytes, bytes, k - 1
      at = at + 1
    end
  end
  return places
end

local DTYPES = { F32 = "float32", BF16 = "bfloat16", F64 = "float64" }

local function find(self, o)
  if files.kind(o.dir) ~= "directory" then fail("no folder %s", o.dir) end
  local shards, count, labels, archives = open_shards(o.dir), 0, {}, {}
  local dtype = shards[1]:info("latents").stored
  if DTYPES[dtype] ~= o.dtype then
    core.fail("%s: 'latents' is %s; the recipe says dtype = \"%s\"", shards[1].path, dtype, o.dtype)
  end
  for k, shard in ipairs(shards) do
    local n = entry_of(shard, "latents", o, dtype).shape[1]
    local own = shard:read "labels"
    if #own.shape ~= 1 or own.shape[1] ~= n then
      core.fail("%s: 'labels' is %s, for %d latents", shard.path, core.shape_text(own.shape), n)
    end
    count, labels[k], archives[k] = count + n, own:to "int64", shard.path
  end
  self.left_out = {}
  local all = #labels == 1 and labels[1] or ops.concat(labels, 1)
  return count, {
    latents = { archives = archives, places = places_of(shards, "latents", o, count, dtype), header = "",
      mirrored_places = o.flip and places_of(shards, "latents_flip", o, count, dtype) or nil },
    labels = { tensor = dataset.labels(o.dir, all, o.classes) },
  }
end

--- Shift and scale, one a channel, from latents_stats.pt; 0 and 1 where the folder is not there, to plan a recipe.
local function statistics(o)
  if files.kind(o.dir) ~= "directory" then return 0, 1 end
  local path = o.dir .. "/latents_stats.pt"
  if not files.exists(path) then
    fail("%s is missing: LightningDiT's mean and deviation by channel; or give shift and scale, as in shift = 0, "
      .. "scale = 0.18215", path)
  end
  local found, shift, scale = pytorch.load(path), {}, {}
  for _, name in ipairs { "mean", "std" } do
    if not tensor.is_tensor(found[name]) or found[name]:numel() ~= o.channels then
      core.fail("%s: it has no '%s' of %d channels", path, name, o.channels)
    end
  end
  local mean, deviation = found.mean:reshape({ o.channels }):totable(), found.std:reshape({ o.channels }):totable()
  for c = 1, o.channels do
    if deviation[c] <= 0 or deviation[c] ~= deviation[c] then
      core.fail("%s: the deviation of channel %d is %g", path, c, deviation[c])
    end
    shift[c], scale[c] = mean[c], 1 / deviation[c]
  end
  return shift, scale
end

---@class perigee.LatentShardsOptions : perigee.DatasetOptions
---@field dir string
---@field classes integer
---@field channels integer
---@field side integer
---@field shift? number|number[]  default: of latents_stats.pt
---@field scale? number|number[]  default: of latents_stats.pt
---@field dtype? string           of the files, default float32

---@class perigee.data
---@field latent_shards fun(options: perigee.LatentShardsOptions): perigee.Dataset

---@param given perigee.LatentShardsOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.latent_shards", given, dataset.spec {
    dir = "string", classes = "count", channels = "count", side = "count", shift = { "number|numbers" },
    scale = { "number|numbers" }, dtype = { "string", "float32", choices = { "float32", "bfloat16", "float64" } },
  })
  if o.crop > 0 then fail "latents can't be cropped" end
  if (o.shift == nil) ~= (o.scale == nil) then fail "shift and scale go together" end
  local scaled, unscaled
  local function prepare_scales()
    if scaled then return end
    local shift, scale = o.shift, o.scale
    if not shift then shift, scale = statistics(o) end
    scaled, unscaled = latents.scaled("data.latent_shards", o.channels, scale, shift)
  end
  return dataset.new {
    name = "latent-shards", classes = o.classes, channels = o.channels, height = o.side, width = o.side,
    batch = o.batch, flip = o.flip, shuffle = o.shuffle, threads = o.threads, depth = o.depth,
    fields = {
      { name = "latents", dtype = o.dtype, shape = { o.channels, o.side, o.side } },
      { name = "labels", dtype = "int64", shape = {} },
    },
    latents = function(_, batch, _, dtype)
      prepare_scales()
      return scaled(batch.latents:to(dtype))
    end,
    unscale = (type(o.shift or {}) == "table" or type(o.scale) == "table") and function(_, z)
      prepare_scales()
      return unscaled and unscaled(z) or z
    end or nil,
    find = function(self) return find(self, o) end,
  }
end
