--- `perigee prepare coco`: MS-COCO as U-ViT keeps it, from its captions' annotations:
---   SPLIT/{i}.png        the picture, cropped; i counts the annotations' pictures by their id, from 0
---   SPLIT/{i}.npy        with --vae: float32 [2C,h,w], mean and log-variance of its latent
---   SPLIT/{i}_{k}.npy    the k-th caption's features, [77,768] of CLIP L/14: taken from files that exist
---   SPLIT/captions.json  [["the first caption of picture 0", ...], ...], for the program that makes the features
---   empty_context.npy    the empty caption's features
--- Perigee has no text tower: where the features are missing it says how many.
local core = require "perigee.core.ffi"
local encoders = require "perigee.prepare.encoder"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local latents = require "perigee.prepare.latents"
local npy = require "perigee.io.npy"
local pictures = require "perigee.prepare.pictures"

local M = {}

local MAX_ANNOTATIONS = 2 ^ 28 -- bytes

-- ---- annotations ------------------------------------------------------------------------------------------------

local function refuse(path, format, ...)
  core.fail("%s: not COCO's annotations of captions: %s", path, format:format(...))
end

--- A list of an object's.
local function list_of(path, object, key)
  local list = type(object) == "table" and object[key]
  if type(list) ~= "table" or list == json.null then refuse(path, "it has no list '%s'", key) end
  return list
end

--- The pictures by rising id: { file, captions } each, captions in the order of the annotations.
---@param path string
---@return { file: string, captions: string[] }[]
function M.annotations(path)
  local bytes = files.size(path)
  if bytes > MAX_ANNOTATIONS then refuse(path, "%.0f bytes; at most %.0f are read", bytes, MAX_ANNOTATIONS) end
  local object, by_id, ids = json.read(path), {}, {}
  for k, image in ipairs(list_of(path, object, "images")) do
    local id, name = image.id, image.file_name
    if type(id) ~= "number" or type(name) ~= "string" or name:find "[/%z]" then
      refuse(path, "picture %d of its list has no number 'id', or no 'file_name' of one file", k)
    end
    if by_id[id] then refuse(path, "two pictures have the id %g", id) end
    by_id[id], ids[#ids + 1] = { file = name, captions = json.array() }, id
  end
  for k, annotation in ipairs(list_of(path, object, "annotations")) do
    local image = by_id[annotation.image_id]
    if not image then refuse(path, "caption %d is of a picture that it does not list", k) end
    if type(annotation.caption) ~= "string" then refuse(path, "annotation %d has no 'caption'", k) end
    table.insert(image.captions, annotation.caption)
  end
  table.sort(ids)
  local list = {}
  for k, id in ipairs(ids) do list[k] = by_id[id] end
  if #list == 0 then refuse(path, "it lists no pictures") end
  return list
end

-- ---- features of captions -----------------------------------------------------------------------------------------

--- The shape of a file of features, which must be float32 [tokens,width] and, where `expected` is given, that.
local function features_shape(path, expected)
  local header = npy.header(path)
  local text = ("%s %s"):format(header.dtype, core.shape_text(header.shape))
  if header.dtype ~= "float32" or #header.shape ~= 2 or expected and text ~= expected then
    core.fail("%s: %s; expected %s", path, text, expected or "float32 [tokens,width], as in [77,768]")
  end
  return text
end

--- Copies a file; the copy appears whole or not at all.
local function copy(from, to)
  local bytes = files.read(from)
  if files.exists(to) and files.read(to) == bytes then return end
  files.write(to, bytes)
end

--- Takes the features that exist below `text` to their places. Returns how many there are, and how many are missing.
local function take_features(o, list)
  local folder, there, missing, shape = o.text .. "/" .. o.split, 0, 0, nil
  if files.kind(folder) ~= "directory" then
    core.fail("--text %s: no folder %s; it holds {i}_{k}.npy, the features of picture i's caption k", o.text, folder)
  end
  for i, image in ipairs(list) do
    for k = 1, #image.captions do
      local name = ("%d_%d.npy"):format(i - 1, k - 1)
      if files.exists(folder .. "/" .. name) then
        there, shape = there + 1, features_shape(folder .. "/" .. name, shape)
        copy(folder .. "/" .. name, ("%s/%s/%s"):format(o.dest, o.split, name))
      else missing = missing + 1 end
    end
    o.progress:follow(("features %d/%d"):format(i, #list), i / #list)
  end
  local empty = o.text .. "/empty_context.npy"
  if files.exists(empty) then
    features_shape(empty, shape)
    copy(empty, o.dest .. "/empty_context.npy")
  else
    o.progress:line("%s is missing: the empty caption's features, which training puts in a caption's place", empty)
  end
  return there, missing
end

-- ---- all ----------------------------------------------------------------------------------------------------------

---@return perigee.PrepareLayout
local function layout_of(folder)
  return { images = folder, images_manifest = folder .. ".manifest",
    image_name = function(number) return ("%d.png"):format(number) end,
    latents = folder, latents_manifest = folder .. "-latents.manifest",
    latent_name = function(number) return ("%d.npy"):format(number) end, log_variance = true }
end

---@class perigee.PrepareCoco : perigee.PrepareOptions
---@field annotations string  captions_train2014.json or another
---@field split string        "train" or "val"
---@field text? string        a folder with {split}/{i}_{k}.npy and empty_context.npy

local function expect_options(o)
  if not o.annotations then core.fail "prepare coco needs --annotations FILE, as captions_train2014.json" end
  if not o.split:match "^[%w_-]+$" then core.fail("--split %s: expected letters, digits, _ and -", o.split) end
  if o.flips then core.fail "prepare coco: --flips are not a part of U-ViT's layout" end
  if o.skip then core.fail "prepare coco: --skip would leave captions without pictures" end
end

--- The captions of each picture, for the program that makes their features; how many there are.
local function write_captions(path, list)
  local captions, count = json.array(), 0
  for k, image in ipairs(list) do
    captions[k], count = image.captions, count + #image.captions
  end
  files.write(path, json.encode(captions) .. "\n")
  return count
end

---@param o perigee.PrepareCoco
function M.run(o)
  expect_options(o)
  if o.vae then encoders.check(o.vae, o.size) end
  local list, names = M.annotations(o.annotations), {}
  for k, image in ipairs(list) do names[k] = image.file end
  require("perigee.prepare").with_lock(o.dest, function()
    local layout = layout_of(o.dest .. "/" .. o.split)
    local images = pictures.run(o, { source = o.source, folder = o.source, names = names }, layout)
    local missing, there = write_captions(layout.images .. "/captions.json", list), 0
    o.progress:line("%s: %d pictures of %dx%d, captions.json", layout.images, #list, o.size, o.size)
    if o.vae then
      latents.run(o, images, layout)
      o.progress:line("%s: mean and log-variance of their latents", layout.images)
    end
    if o.text then there, missing = take_features(o, list) end
    o.progress:line("%s: features of %d captions%s", layout.images, there, missing > 0
      and ("; %d are missing. Perigee does not compute them: a program with CLIP's text tower makes {i}_{k}.npy of "
        .. "captions.json, and --text DIR takes them from DIR/%s"):format(missing, o.split) or "")
  end)
end

return M
