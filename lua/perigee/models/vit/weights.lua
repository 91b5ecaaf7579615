--- A vision transformer's file of weights (models/vit.lua): what the model takes over from it besides the numbers.
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local weights = require "perigee.io.weights"

local M = {}

--- The file as if its positions had a row for the class token, of zeros: where timm folds that row into the class token
--- (DINOv2 with registers), the tensor `place` holds the patches' alone.
local function with_class_row(self, file, place)
  local entry = file.entries[place]
  local shape = entry and entry.shape
  local side = shape and #shape == 3 and math.sqrt(shape[2])
  if not side or not (side % 1 == 0 or shape[2] + 1 == self.position.shape[2]) then return file end
  local entries = tables.merged(file.entries,
    { [place] = tables.merged(entry, { shape = { shape[1], shape[2] + 1, shape[3] } }) })
  local function read(_, name)
    local t = file:read(name)
    if name ~= place then return t end
    return ops.concat({ ops.fill({ shape[1], 1, shape[3] }, { value = 0, dtype = t.dtype }), t }, 2)
  end
  return setmetatable({ entries = entries, read = read }, { __index = file })
end

--- An error unless model and file both have a class token or both have none.
local function expect_class_token(self, file, kind)
  local name = weights.public_name(kind.names, "class_token")
  local has = name and file.entries[kind.prefix .. name] ~= nil
  if self.class_token and not has then
    core.fail("%s: it is %s, and has no class token; %s has one: use class_token = false", file.path, kind.table.what,
      self.name)
  elseif has and not self.class_token then
    core.fail("%s: it has the class token '%s', and %s has none: use class_token = true", file.path,
      kind.prefix .. name, self.name)
  end
end

--- Takes over the position grid that the weights file has, before anything refers to the parameter.
local function adopt_stored_grid(self, file, place)
  local shape = file.entries[place] and file.entries[place].shape
  local rows = shape and shape[#shape - 1]
  if not rows or rows == self.position.shape[2] then return end
  local side = math.sqrt(rows - self.class_rows)
  if side % 1 ~= 0 then
    core.fail("%s: %s %s is not a square grid%s; give the option 'stored'", file.path, place, core.shape_text(shape),
      not self.class_token and "" or #shape == 3 and ", with or without a class token" or " and a class token")
  end
  self.stored = { side, side }
  self.position = self:stored_positions()
  self:assign_names()
end

--- The epsilon that a file of weights was trained with, unless the option says one.
local function adopt_epsilon(self, epsilon)
  if self.settings.epsilon or not epsilon then return end
  for _, norm in pairs { self.pre_norm, self.norm } do norm.epsilon = epsilon end
  for _, block in ipairs(self.blocks) do block.norm1.epsilon, block.norm2.epsilon = epsilon, epsilon end
end

--- Materialises a model from its file of weights.
---@param self perigee.Vit
---@param options? table  of Module:materialise
function M.materialise(self, options)
  local file = weights.open(self.weights)
  local names = self.names == "dinov2" and self.settings.swiglu and "dinov2_swiglu" or self.names
  local kind = weights.kind(file, "vit", { names = names, take = self.take })
  expect_class_token(self, file, kind)
  adopt_epsilon(self, kind.table.epsilon)
  if self.position then
    local place = kind.prefix .. (weights.public_name(kind.names, "position") or "")
    if self.class_token then file = with_class_row(self, file, place) end
    adopt_stored_grid(self, file, place)
  end
  local result = module.Module.materialise(self, tables.merged({ initialise = false }, options))
  weights.load(file, self, { names = kind.names, prefix = kind.prefix })
  return result
end

return M
