--- Tensors in files, by the ending of the name: .npy and .png hold one tensor, .safetensors a table of tensors by name.
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local M = {}

local module_of = { npy = "perigee.io.npy", png = "perigee.io.png", safetensors = "perigee.io.safetensors" }

local function module_for(verb, path)
  if type(path) ~= "string" then
    core.fail("%s: the file's name comes first: pg.%s", verb, verb == "save" and 'save("x.npy", x)' or 'load "x.npy"')
  end
  local ending = path:match "%.(%w+)$"
  local name = module_of[ending and ending:lower()]
  if not name then
    core.fail("%s: '%s' ends in neither .npy, .png nor .safetensors%s", verb, path,
      (ending == "pt" or ending == "pth") and "; PyTorch writes .safetensors with safetensors.torch.save_file" or "")
  end
  return require(name), ending:lower()
end

--- Reads a file that `save` wrote: a tensor, or of .safetensors a table of tensors by name and its metadata.
---@param path string
---@return perigee.Tensor|table<string, perigee.Tensor>
function M.load(path) return module_for("load", path).load(path) end

--- Writes a tensor (.npy; .png for uint8 [H,W,3]) or a table of tensors by name (.safetensors, with texts about them).
---@param path string
---@param what perigee.Tensor|table<string, perigee.Tensor>
---@param metadata? table<string, string>
function M.save(path, what, metadata)
  local file, ending = module_for("save", path)
  local one = tensor.is_tensor(what)
  if one == (ending == "safetensors") then
    core.fail("save: '%s' takes %s", path,
      one and "a table of tensors by name: pg.save(path, { x = x })" or "one tensor; a table goes into .safetensors")
  end
  return file.save(path, what, metadata)
end

return M
