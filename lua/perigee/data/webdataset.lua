--- Tar archives as webdataset writes them: the members of a sample follow one another and share their name up to its
--- first dot, as in 000017.jpg and 000017.cls. Pictures are decoded, and records read, where they lie.
---
---   pg.data.webdataset { files = "imagenet/train", classes = 1000, size = 256, batch = 256 }
---   pg.data.webdataset { files = "z", record = "latent.npy", classes = 1000, channels = 4, side = 32, batch = 8 }
---
--- With `record` a sample is a latent: a .npy member of so many channels, or of twice as many, which are then means and
--- deviations (moments = true), from which each step draws; a student sees (latent − shift)·scale.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dataset = require "perigee.data.dataset"
local files = require "perigee.io.files"
local latents = require "perigee.io.latents"
local layout = require "perigee.core.layout"
local members = require "perigee.io.members"
local npy = require "perigee.io.npy"
local picture = require "perigee.io.picture"
local tar = require "perigee.io.tar"

local MAX_LABEL = 32 -- bytes of a label's member

local function fail(format, ...) core.fail("data.webdataset: " .. format, ...) end

--- The archives: a list as it is, a folder's .tar files, or one file.
local function archives_of(given)
  if type(given) == "table" then return given end
  local kind = files.kind(given) or fail("no folder or file %s", given)
  if kind ~= "directory" then return { given } end
  local list = {}
  for _, name in ipairs(files.list(given)) do
    if name:match "%.tar$" then list[#list + 1] = given .. "/" .. name end
  end
  if #list == 0 then fail("%s has no .tar files", given) end
  return list
end

--- A member's key and its ending, "a/000017" and "latent.npy".
local function split(name)
  local folder, base = name:match "^(.*/)([^/]*)$"
  local key, ending = (base or name):match "^([^.]+)%.(.+)$"
  if key then return (folder or "") .. key, ending:lower() end
end

--- The samples of one archive, in its order: { image =, label = } by the members' names.
local function samples_of(archive, o, left_out)
  local list, current = {}, nil
  for _, name in ipairs(archive.names) do
    local key, ending = split(name)
    local role = ending == o.label and "label"
      or (o.record and ending == o.record or not o.record and picture.is_named(name)) and "content"
    if not role then left_out[#left_out + 1] = name
    else
      if not current or current.key ~= key then
        current = { key = key }
        list[#list + 1] = current
      end
      if current[role] then core.fail("%s: '%s' and '%s' are of one sample", archive.path, current[role], name) end
      current[role] = name
    end
  end
  for _, sample in ipairs(list) do
    for role, ending in pairs { content = o.record or "jpg, .png or .webp", label = o.label } do
      if not sample[role] then core.fail("%s: sample '%s' has no .%s", archive.path, sample.key, ending) end
    end
  end
  return list
end

local function label_of(archive, name)
  local text = archive:read(name, MAX_LABEL)
  local label = tonumber(text:match "^%s*(%d+)%s*$")
  return label or core.fail("%s: '%s' is not a whole number", archive.path, name)
end

--- The header that all records begin with, from the first one, and whether they are means and deviations.
local function shared_header(path, place, o)
  local header = npy.header(path, place.offset, place.bytes)
  local s = header.shape
  for times = 1, 2 do
    if header.dtype == "float32" and layout.same_shape(s, { times * o.channels, o.side, o.side }) then
      return files.read(path, place.offset, header.offset - place.offset), times
    end
  end
  core.fail("%s: its first record is %s %s; expected float32 [%d,%d,%d] or [%d,%d,%d]", path, header.dtype,
    core.shape_text(s), o.channels, o.side, o.side, 2 * o.channels, o.side, o.side)
end

local function find(self, o)
  local archives, names, labels, places = archives_of(o.files), {}, {}, {}
  self.left_out = {}
  for k, path in ipairs(archives) do
    local archive = tar.open(path)
    for _, sample in ipairs(samples_of(archive, o, self.left_out)) do
      local place = archive:member(sample.content)
      place.archive = k - 1
      names[#names + 1], labels[#labels + 1] = sample.content, label_of(archive, sample.label)
      places[#places + 1] = place
    end
  end
  if #names == 0 then fail("no samples in %s", archives[1]) end
  local source = { archives = archives, names = names,
    places = members.array(#names, function(k) return places[k] end) }
  if o.record then
    local times
    source.header, times = shared_header(archives[places[1].archive + 1], places[1], o)
    if times ~= (o.moments and 2 or 1) then
      fail("the records have %d channels; with channels = %d %s", times * o.channels, o.channels,
        o.moments and "and moments = true expected twice as many" or "they are means and deviations: moments = true")
    end
  else source.resize, source.augment = o.resize, true end
  return #names, {
    [o.record and "latents" or "images"] = source,
    labels = { tensor = dataset.labels("data.webdataset", labels, o.classes) },
  }
end

local function expect_options(o)
  for key in pairs(o.record and { channels = true, side = true } or { size = true }) do
    if not o[key] then fail("option '%s' is missing; %s", key, o.record and "records need channels and side"
      or "pictures need a size") end
  end
  if o.record and (o.flip or o.crop > 0) then fail "latents can't be flipped or cropped" end
end

---@class perigee.WebdatasetOptions : perigee.DatasetOptions
---@field files string|string[]   a folder of .tar files, one such file, or a list
---@field classes integer
---@field label? string           the ending of a label's member: "cls"
---@field size? integer           of pictures: their side
---@field resize? boolean         default true
---@field record? string          of latents: the ending of a record's member, as "latent.npy"
---@field channels? integer
---@field side? integer
---@field moments? boolean        records are means and deviations
---@field scale? number|number[]  default 0.18215
---@field shift? number|number[]  default 0

---@class perigee.data
---@field webdataset fun(options: perigee.WebdatasetOptions): perigee.Dataset

---@param given perigee.WebdatasetOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.webdataset", given, dataset.spec {
    files = "string|table", classes = "count", label = { "string", "cls" }, size = { "count" },
    resize = { "boolean", true }, record = { "string" }, channels = { "count" }, side = { "count" },
    moments = { "boolean", false }, scale = { "number|numbers", 0.18215 }, shift = { "number|numbers", 0 },
  })
  expect_options(o)
  local common = { name = "webdataset", classes = o.classes, batch = o.batch, flip = o.flip, crop = o.crop,
    shuffle = o.shuffle, threads = o.threads, depth = o.depth, find = function(self) return find(self, o) end }
  if not o.record then
    common.channels, common.height, common.width, common.image_size = 3, o.size, o.size, o.size
    return dataset.new(common)
  end
  local scaled, unscaled = latents.scaled("data.webdataset", o.channels, o.scale, o.shift)
  common.channels, common.height, common.width = o.channels, o.side, o.side
  common.fields = {
    { name = "latents", dtype = "float32", shape = { (o.moments and 2 or 1) * o.channels, o.side, o.side } },
    { name = "labels", dtype = "int64", shape = {} },
  }
  common.latents = function(_, batch, state, dtype)
    return scaled(o.moments and latents.draw(batch.latents, state, dtype) or batch.latents:to(dtype))
  end
  common.unscale = unscaled and function(_, z) return unscaled(z) end or nil
  return dataset.new(common)
end
