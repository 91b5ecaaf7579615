--- Modules: tables that hold parameters, fixed tensors ("buffers"), and other modules.
---
---   local Linear = module.class "linear"
---   function Linear:build(inputs, outputs) self.weight = module.parameter({ outputs, inputs }, initialise.zeros) end
---   function Linear:forward(x) return ops.linear(x, self.weight) end
---   local layer = Linear(8, 16)
---   layer:materialise { seed = 0 }
---   layer(x)
---
--- A parameter is a tensor without storage until its model is materialised: then all of them are views of one flat
--- tensor. Names come from the fields on the way to a parameter: blocks.1.attention.qkv.weight.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local nearest = require "perigee.base.nearest"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

--- Parameters start at multiples of this many elements in the flat tensor: 64 bytes in float32.
M.ALIGNMENT = 16

---@class perigee.Module
local Module = {}
M.Module = Module

--- A class of modules. Calling the class makes an instance and hands its arguments to `build`; calling an instance is
--- calling its `forward`.
function M.class(name)
  local class = setmetatable({ class_name = name, is_module = true }, {
    __index = Module,
    __call = function(class, ...)
      local self = setmetatable({}, class)
      self:build(...)
      return self
    end,
  })
  class.__index = class
  class.__call = function(self, ...) return self:forward(...) end
  class.__tostring = function(self) return require("perigee.nn.tree").text(self) end
  return class
end

function M.is_module(x)
  local class = type(x) == "table" and getmetatable(x)
  return class and rawget(class, "is_module") == true or false
end

--- A trained tensor. `initialise(shape, draw)` returns its first values (nn/initialise.lua).
---@param options? { public_shape?: integer[] }  the shape that public checkpoints give it, where it is another
---@return perigee.Tensor
function M.parameter(shape, initialise, options)
  local t = tensor.meta(shape)
  rawset(t, "role", "parameter")
  rawset(t, "initialise", initialise or error("a parameter needs an initialiser", 2))
  rawset(t, "public_shape", options and options.public_shape or nil)
  return t
end

--- A fixed tensor: `compute()` returns a float32 tensor of that shape when the model is materialised.
---@return perigee.Tensor
function M.buffer(shape, compute)
  local t = tensor.meta(shape)
  rawset(t, "role", "buffer")
  rawset(t, "compute", compute)
  return t
end

-- ---- traversal -----------------------------------------------------------------------------------------------

local function visit(node, prefix, role, seen, list)
  if seen[node] then return end
  seen[node] = true
  for _, key in ipairs(tables.sorted_keys(node)) do
    local value = (type(key) == "string" or type(key) == "number") and node[key]
    if tensor.is_tensor(value) then
      if rawget(value, "role") == role and not seen[value] then
        seen[value] = true
        list[#list + 1] = { name = prefix .. key, tensor = value }
      end
    elseif type(value) == "table" and (getmetatable(value) == nil or M.is_module(value)) then
      visit(value, prefix .. key .. ".", role, seen, list)
    end
  end
end

--- Parameters in a fixed order: fields by name, lists by position.
---@return { name: string, tensor: perigee.Tensor }[]
function Module:named_parameters()
  local list = {}
  visit(self, "", "parameter", {}, list)
  return list
end

---@return { name: string, tensor: perigee.Tensor }[]
function Module:named_buffers()
  local list = {}
  visit(self, "", "buffer", {}, list)
  return list
end

local function by_name(list)
  local map = {}
  for _, entry in ipairs(list) do map[entry.name] = entry.tensor end
  return map
end

--- Parameters by name.
---@return table<string, perigee.Tensor>
function Module:parameters() return by_name(self:named_parameters()) end

--- Fixed tensors by name.
---@return table<string, perigee.Tensor>
function Module:buffers() return by_name(self:named_buffers()) end

--- How many numbers are trained.
function Module:parameter_count()
  local count = 0
  for _, entry in ipairs(self:named_parameters()) do count = count + layout.numel(entry.tensor.shape) end
  return count
end

--- Writes the parameters' and buffers' names on them, as programs print them.
function Module:assign_names(prefix)
  for _, list in ipairs { self:named_parameters(), self:named_buffers() } do
    for _, entry in ipairs(list) do rawset(entry.tensor, "name", (prefix or "") .. entry.name) end
  end
  return self
end

function Module:forward() core.fail("a %s has no forward", self.class_name) end

-- ---- freezing ------------------------------------------------------------------------------------------------

function M.is_frozen(t) return rawget(t, "frozen") == true end

--- Parameters by the names of fields ("scale", "blocks.3"), those of all fields where none is named.
local function named(self, fields)
  local all, chosen = self:named_parameters(), {}
  if #fields == 0 then return all end
  for _, field in ipairs(fields) do
    local before, names = #chosen, {}
    for k, entry in ipairs(all) do
      names[k] = entry.name
      if entry.name == field or entry.name:sub(1, #field + 1) == field .. "." then chosen[#chosen + 1] = entry end
    end
    if #chosen == before then
      core.fail("a %s has no parameter under the name '%s'%s", self.class_name, tostring(field),
        nearest.hint(tostring(field), names))
    end
  end
  return chosen
end

--- Takes parameters out of training: no gradient, no moments, no weight decay; they keep their values, and are in
--- checkpoints. All of the module's, or those under the names given: model:freeze("position", "blocks.1"). Like
--- requires_grad_(false) in PyTorch; said before the training begins. Returns the module.
---@param ... string
---@return perigee.Module
function Module:freeze(...)
  for _, entry in ipairs(named(self, { ... })) do rawset(entry.tensor, "frozen", true) end
  return self
end

--- The other way round: model:freeze():unfreeze "head".
---@param ... string
---@return perigee.Module
function Module:unfreeze(...)
  for _, entry in ipairs(named(self, { ... })) do rawset(entry.tensor, "frozen", false) end
  return self
end

-- ---- storage -------------------------------------------------------------------------------------------------

--- Where each parameter lies in the flat tensor, in order: those that are trained, then the frozen ones. Returns the
--- places, the flat tensor's size, and the size of its trained part.
---@return { name: string, tensor: perigee.Tensor, offset: integer, numel: integer, shape: integer[],
---  frozen: boolean }[], integer, integer
function Module:layout()
  local parameters, entries, offset, trained = self:named_parameters(), {}, 0, 0
  for _, frozen in ipairs { false, true } do
    for _, entry in ipairs(parameters) do
      if M.is_frozen(entry.tensor) == frozen then
        local t = entry.tensor
        local numel = layout.numel(t.shape)
        entries[#entries + 1] = { name = entry.name, tensor = t, offset = offset, numel = numel, shape = t.shape,
          frozen = frozen }
        offset = math.ceil((offset + numel) / M.ALIGNMENT) * M.ALIGNMENT
      end
    end
    if not frozen then trained = offset end
  end
  return entries, offset, trained
end

--- A view of part of a flat tensor.
local function slice(flat, offset, shape)
  return tensor.view(flat, { offset = offset, shape = shape, strides = layout.packed(shape) })
end
M.slice = slice

local function zero_gaps(flat, entries, total)
  for k, entry in ipairs(entries) do
    local first = entry.offset + entry.numel
    local length = (entries[k + 1] and entries[k + 1].offset or total) - first
    if length > 0 then
      local zeros = {}
      for i = 1, length do zeros[i] = 0 end
      slice(flat, first, { length }):copy_(tensor.tensor(zeros, { length }, flat.dtype))
    end
  end
end

--- Random numbers for one parameter: they depend on the seed and the parameter's name alone.
local function drawing(state, name)
  local function options() return { state = state, purpose = name, dtype = "float32" } end
  return {
    normal = function(shape) return ops.random_normal(shape, options()) end,
    uniform = function(shape) return ops.random_uniform(shape, options()) end,
  }
end

local function initialise_parameters(parameters, seed)
  local state = tensor.tensor({ seed, 0, 0 }, "int64") -- seed, step, first sample
  for _, entry in ipairs(parameters) do
    tensor.tidy(function()
      local values = rawget(entry.tensor, "initialise")(entry.tensor.shape, drawing(state, entry.name))
      if not layout.same_shape(values.shape, entry.tensor.shape) then
        core.fail("%s: its initialiser returned %s for %s", entry.name, core.shape_text(values.shape),
          core.shape_text(entry.tensor.shape))
      end
      entry.tensor:copy_(values)
    end)
  end
end

local materialise_rules = {
  seed = { "natural", 0 },
  dtype = { "string", "float32", choices = { "float32", "float64", "bfloat16" } },
  device = { "string", "cpu", choices = core.device_names },
  purpose = { "string", "parameters" },
  buffer = { "tensor" },
  initialise = { "boolean", true },
  continues = { "boolean", false },
}

--- Gives every parameter a place in one flat tensor (options.buffer, or a new one) and its first values, and computes
--- the buffers. `initialise = false` leaves the parameters' values undefined, for a caller who loads them; `continues`
--- says that a checkpoint will be loaded, so that no file of weights is read for the first values.
---@param options? { seed?: integer, dtype?: string, device?: string, purpose?: string, buffer?: perigee.Tensor,
---  initialise?: boolean, continues?: boolean }
---@return { flat: perigee.Tensor, layout: table[], trained: integer }  `trained`: how much of `flat` is trained
function Module:materialise(options)
  options = check.options("materialise", options or {}, materialise_rules)
  local entries, total, trained = self:layout()
  local flat = options.buffer
  if flat then
    options.dtype, options.device = flat.dtype, flat.device
    if layout.numel(flat.shape) < total then
      core.fail("materialise: the flat tensor has %d elements, the model needs %d", layout.numel(flat.shape), total)
    end
  else
    flat = tensor.empty({ total }, options.dtype, { device = options.device, purpose = options.purpose })
  end
  for _, entry in ipairs(entries) do tensor.materialise(entry.tensor, slice(flat, entry.offset, entry.shape)) end
  zero_gaps(flat, entries, total)
  if options.initialise then initialise_parameters(entries, options.seed) end
  self:compute_buffers(options)
  return { flat = flat, layout = entries, trained = trained }
end

--- Computes the buffers, again if they are there, in another dtype perhaps.
---@param options { dtype: string, device: string, purpose: string }
function Module:compute_buffers(options)
  for _, entry in ipairs(self:named_buffers()) do
    tensor.dematerialise(entry.tensor)
    tensor.tidy(function() -- the buffer keeps the storage that the temporary tensors let go
      local values = rawget(entry.tensor, "compute")()
      local held = tensor.empty(values.shape, options.dtype, { device = options.device, purpose = options.purpose })
      tensor.materialise(entry.tensor, held:copy_(values))
    end)
  end
end

--- Takes the storage away again; the memory goes when nobody else holds the flat tensor.
function Module:dematerialise()
  for _, list in ipairs { self:named_parameters(), self:named_buffers() } do
    for _, entry in ipairs(list) do tensor.dematerialise(entry.tensor) end
  end
end

--- A parameter without memory takes the dtype that programs will read.
function Module:assume_dtype(dtype)
  for _, list in ipairs { self:named_parameters(), self:named_buffers() } do
    for _, entry in ipairs(list) do
      if entry.tensor.device == "meta" then entry.tensor.dtype = dtype end
    end
  end
end

function Module:is_materialised()
  local first = self:named_parameters()[1]
  return first == nil or rawget(first.tensor, "handle") ~= nil
end

return M
