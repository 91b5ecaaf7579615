--- Where REPA keeps what was prepared, by the sample's number:
---   images/ddddd/imgNNNNNNNN.png, images/dataset.json
---   vae-sd/ddddd/img-mean-std-NNNNNNNN.npy, vae-sd/dataset.json;  vae-sd-mirrored/ in the same way
--- ddddd being the number's first five digits of eight.
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local M = { images = "images", latents = "vae-sd", mirrored = "vae-sd-mirrored" }

local function of(pattern)
  return function(number)
    local digits = ("%08d"):format(number)
    return pattern:format(digits:sub(1, 5), digits)
  end
end

--- Names of a sample's files, relative to `images` and `latents`.
M.image_name, M.latent_name = of "%s/img%s.png", of "%s/img-mean-std-%s.npy"

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
