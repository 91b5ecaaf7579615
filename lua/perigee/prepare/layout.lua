--- Where REPA keeps what was prepared, by the sample's number:
---   images/ddddd/imgNNNNNNNN.png, images/dataset.json
---   vae-sd/ddddd/img-mean-std-NNNNNNNN.npy, vae-sd/dataset.json;  vae-sd-mirrored/ in the same way
--- ddddd being the number's first five digits of eight.
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local M = {}

--- Where samples' files lie: folders, the manifests of what is in them, and functions from a sample's number to a name
--- in its folder.
---@class perigee.PrepareLayout
---@field images string
---@field images_manifest string
---@field image_name fun(number: integer): string
---@field latents string
---@field latents_manifest string
---@field latent_name fun(number: integer): string
---@field mirrored? string
---@field log_variance? boolean  latents are mean and log-variance

local function of(pattern)
  return function(number)
    local digits = ("%08d"):format(number)
    return pattern:format(digits:sub(1, 5), digits)
  end
end

--- REPA's, in a folder.
---@return perigee.PrepareLayout
function M.repa(dest)
  local images, latents = dest .. "/images", dest .. "/vae-sd"
  return { images = images, images_manifest = images .. ".manifest", image_name = of "%s/img%s.png",
    latents = latents, latents_manifest = latents .. ".manifest", latent_name = of "%s/img-mean-std-%s.npy",
    mirrored = latents .. "-mirrored" }
end

--- Writes FOLDER/dataset.json: the labels of a manifest's samples by their files' names.
---@param folder string
---@param manifest perigee.Manifest
---@param name_of fun(number: integer): string
function M.write_labels(folder, manifest, name_of)
  local list = json.array()
  for k, line in ipairs(manifest.lines) do
    if line.crc and line.label then list[#list + 1] = json.array { name_of(k - 1), line.label } end
  end
  local path, text = folder .. "/dataset.json", json.encode { labels = #list > 0 and list or json.null } .. "\n"
  if not files.exists(path) or files.read(path) ~= text then files.write(path, text) end
end

return M
