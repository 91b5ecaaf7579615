--- Tensors in files, by the ending of the name: .npy and .png hold one tensor (so do .jpg and .webp, which are only
--- read), .safetensors a table of tensors by name, and so do PyTorch's .pt and .pth.
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local M = {}

local module_of = {
  npy = "perigee.io.npy", png = "perigee.io.png", safetensors = "perigee.io.safetensors", pt = "perigee.io.pytorch",
  pth = "perigee.io.pytorch", jpg = "perigee.io.picture", jpeg = "perigee.io.picture", webp = "perigee.io.picture",
}

local function module_for(verb, path)
  if type(path) ~= "string" then
    core.fail("%s: the file's name comes first: pg.%s", verb, verb == "save" and 'save("x.npy", x)' or 'load "x.npy"')
  end
  local ending = path:match "%.(%w+)$"
  local name = module_of[ending and ending:lower()]
  if not name then
    core.fail("%s: '%s' ends in neither .npy, .png, .safetensors nor .pt", verb, path)
  end
  return require(name), ending:lower()
end

--- Reads a file: a tensor; of .safetensors a table of tensors by name and its metadata; of .pt and .pth a table of
--- tensors by the keys on the way to them, "ema.blocks.0.attn.qkv.weight", and what else the file holds.
---@param path string
---@return perigee.Tensor|table<string, perigee.Tensor>
function M.load(path) return module_for("load", path).load(path) end

--- Writes a tensor (.npy; .png for uint8 [H,W,3]) or a table of tensors by name (.safetensors, with texts about them;
--- .pt, where it may be nested and hold numbers, texts and switches).
---@param path string
---@param what perigee.Tensor|table<string, perigee.Tensor>
---@param metadata? table<string, string>
function M.save(path, what, metadata)
  local file, ending = module_for("save", path)
  if not file.save then core.fail("save: '%s': pictures are written as .png", path) end
  local one = tensor.is_tensor(what)
  if one == (ending ~= "npy" and ending ~= "png") then
    core.fail("save: '%s' takes %s", path,
      one and "a table of tensors by name: pg.save(path, { x = x })"
        or "one tensor; a table goes into .safetensors or .pt")
  end
  return file.save(path, what, metadata)
end

return M
