--- A group of parameters trained together: one module's parameters with their gradients, AdamW moments and moving average,
--- each a flat float32 buffer (masters), and in lower precision a working copy that the programs read.
local core = require "perigee.core"
local ops, tensor = core.ops, core.tensor

---@class perigee.Group
local Group = {}
Group.__index = Group

local function zeros(count, purpose, device)
  local t = tensor.empty({ count }, "float32", { purpose = purpose, device = device })
  t:copy_(ops.fill({ count }, { value = 0, dtype = "float32" }))
  return t
end

--- Materialises a module and lays its training state out. `prefix` names its tensors in checkpoints.
function Group.new(prefix, module, options)
  local made = module:materialise { seed = options.seed, dtype = "float32", device = options.device, purpose = "parameters" }
  local count = made.flat.shape[1]
  local self = setmetatable({
    prefix = prefix, module = module, layout = made.layout, count = count, parameters = made.flat,
    gradients = zeros(count, "gradients", options.device), first_moment = zeros(count, "optimizer", options.device),
    second_moment = zeros(count, "optimizer", options.device), average = zeros(count, "ema", options.device),
    accumulated = options.micro and zeros(count, "gradients", options.device) or nil,
  }, Group)
  self.average:copy_(self.parameters)
  if options.dtype ~= "float32" then -- the programs read a working copy; the masters stay here
    self.working = tensor.empty({ count }, options.dtype, { purpose = "parameters", device = options.device })
    self.working:copy_(self.parameters)
    self.working_gradients = tensor.empty({ count }, options.dtype, { purpose = "gradients", device = options.device })
    self:show(self.working)
  end
  return self
end

--- The part of a flat buffer that is one parameter.
function Group.slice(flat, entry) return flat:narrow(1, entry.offset + 1, entry.numel):reshape(entry.shape) end

--- Lets the module's parameters be views of another flat buffer of the same layout (working copy, moving average).
function Group:show(flat)
  local parameters = self.module:parameters()
  for _, entry in ipairs(self.layout) do
    tensor.dematerialise(parameters[entry.name])
    tensor.materialise(parameters[entry.name], Group.slice(flat, entry))
  end
end

--- What the gradients program trains: { name, tensor, into }, `into` being the place of each gradient.
function Group:trained()
  local list, parameters = {}, self.module:parameters()
  local flat = self.working_gradients or self.gradients
  for k, entry in ipairs(self.layout) do
    list[k] = { name = self.prefix .. "." .. entry.name, tensor = parameters[entry.name], into = Group.slice(flat, entry) }
  end
  return list
end

local kinds = { "parameters", "average", "first_moment", "second_moment" }
local heads = { parameters = "", average = "ema.", first_moment = "optimizer.m.", second_moment = "optimizer.v." }

--- The group's state by checkpoint name, as views.
function Group:state()
  local state = {}
  for _, kind in ipairs(kinds) do
    for _, entry in ipairs(self.layout) do
      state[heads[kind] .. self.prefix .. "." .. entry.name] = Group.slice(self[kind], entry)
    end
  end
  return state
end

--- After the masters changed from outside: brings the working copy up to date.
function Group:refresh()
  if self.working then self.working:copy_(self.parameters) end
end

--- Frees everything.
function Group:free()
  self.module:dematerialise()
  for _, name in ipairs { "parameters", "gradients", "first_moment", "second_moment", "average", "accumulated", "working",
                          "working_gradients" } do
    if self[name] then self[name]:free() end
  end
end

return Group
