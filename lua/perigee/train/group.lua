--- A group of parameters trained together: one module's parameters with their gradients, the optimiser's moments and
--- moving average, each a flat buffer of float32 (in float64 programs, float64), in lower precision a working copy that
--- the programs read, and, where gradients are summed or converted, a buffer that the programs write. Frozen parameters
--- come last in the flat buffers; there are no gradients and no moments for them.
local core = require "perigee.core"
local describe = require "perigee.recipe.describe"
local op = require "perigee.core.op"
local optim = require "perigee.optim"
local slice = require("perigee.nn.module").slice
local ops, tensor = core.ops, core.tensor

---@class perigee.Group
local Group = {}
Group.__index = Group

local function zeros(count, dtype, purpose, device)
  return tensor.empty({ count }, dtype, { purpose = purpose, device = device }):fill_(0)
end

--- Materialises a module and lays its training state out. `prefix` names its tensors in checkpoints; `micro`: the
--- gradients of a batch's pieces are summed; `moments`: the optimiser's; `continues`: a checkpoint's values will take
--- the place of the first ones.
---@param options { seed: integer, dtype: string, device: string, micro: boolean, moments: table[], continues: boolean }
function Group.new(prefix, module, options)
  local dtype, device = op.stat(options.dtype), options.device
  local made = module:materialise { seed = options.seed, dtype = dtype, device = device, purpose = "parameters",
    continues = options.continues }
  local count, trained = made.flat.shape[1], made.trained
  local self = setmetatable({
    prefix = prefix, module = module, layout = made.layout, count = count, parameters = made.flat, dtype = dtype,
    gradients = zeros(trained, dtype, "gradients", device), average = zeros(count, dtype, "ema", device),
    moments = {}, states = { { head = "", of_frozen = true }, { head = "ema.", of_frozen = true } },
  }, Group)
  self.states[1].flat, self.states[2].flat = self.parameters, self.average
  for _, moment in ipairs(options.moments) do
    local flat = zeros(trained, dtype, "optimizer", device)
    self.moments[moment.name] = flat
    self.states[#self.states + 1] = { head = ("optimizer.%s."):format(moment.saved), flat = flat }
  end
  self.written = self.gradients
  self.average:copy_(self.parameters)
  if options.dtype ~= dtype then -- the programs read a working copy; the masters stay here
    self.working = tensor.empty({ count }, options.dtype, { purpose = "parameters", device = device })
    self.working:copy_(self.parameters)
    self:show(self.working)
  end
  if self.working or options.micro then self.written = zeros(trained, options.dtype, "gradients", device) end
  return self
end

--- Sets the gradients to zero: a program leaves those alone that its losses do not reach.
function Group:clear_gradients()
  for _, flat in ipairs { self.gradients, self.written } do flat:fill_(0) end
end

--- Records in a program that what another one wrote is added to the sum over the pieces of a batch, as their mean;
--- `first`: begins that sum. Nothing, where gradients are written in their place at once.
---@param p perigee.Program
function Group:reduce(p, pieces, first)
  if not rawequal(self.written, self.gradients) and self.gradients:numel() > 0 then
    ops.accumulate(p:capture(self.gradients), p:capture(self.written), { scale = 1 / pieces, first = first })
  end
end

--- Lets the module's parameters be views of another flat buffer of the same layout (working copy, moving average), and
--- its fixed tensors have that one's dtype.
function Group:show(flat)
  for _, entry in ipairs(self.layout) do
    tensor.dematerialise(entry.tensor)
    tensor.materialise(entry.tensor, slice(flat, entry.offset, entry.shape))
  end
  local buffers = self.module:named_buffers()
  if #buffers > 0 and buffers[1].tensor.dtype ~= flat.dtype then
    self.module:compute_buffers { dtype = flat.dtype, device = flat.device, purpose = "parameters" }
  end
end

--- The moving averages themselves, in the dtype of masters: parameter -> view, for programs that read both.
---@return table<perigee.Tensor, perigee.Tensor>
function Group:average_views()
  local views = {}
  for _, entry in ipairs(self.layout) do
    views[entry.tensor] = slice(self.average, entry.offset, entry.shape)
    rawset(views[entry.tensor], "role", "average")
  end
  return views
end

--- The values that replace parameters where a program is to see their moving averages: parameter -> view, in the dtype
--- of the parameters. The second result is what had to be made for it, if anything.
---@return table<perigee.Tensor, perigee.Tensor>, perigee.Tensor?
function Group:averages()
  local views = {}
  local made = self.working and self.average:to(self.working.dtype)
  for _, entry in ipairs(self.layout) do
    views[entry.tensor] = slice(made or self.average, entry.offset, entry.shape)
  end
  return views, made
end

--- The parameters that the gradients program trains: { name, tensor, into }, `into` being the place of each gradient.
function Group:trained()
  local list = {}
  for _, entry in ipairs(self.layout) do
    if not entry.frozen then
      list[#list + 1] = { name = self.prefix .. "." .. entry.name, tensor = entry.tensor,
        into = slice(self.written, entry.offset, entry.shape) }
    end
  end
  return list
end

--- The group's state by checkpoint name, as views.
function Group:state()
  local views = {}
  for _, state in ipairs(self.states) do
    for _, entry in ipairs(self.layout) do
      if not entry.frozen or state.of_frozen then
        views[state.head .. self.prefix .. "." .. entry.name] = slice(state.flat, entry.offset, entry.shape)
      end
    end
  end
  return views
end

--- After the masters changed from outside: brings the working copy up to date.
function Group:refresh()
  if self.working then self.working:copy_(self.parameters) end
end

--- Frees everything.
function Group:free()
  self.module:dematerialise()
  for _, name in ipairs { "parameters", "gradients", "average", "working", "written" } do
    if self[name] then self[name]:free() end
  end
  for _, flat in pairs(self.moments) do flat:free() end
end

--- The groups of a recipe: the student, then the modules of its losses in the order of stages, losses and names.
---@param continues? boolean  a checkpoint will be loaded
---@return perigee.Group[]
function Group.of_recipe(recipe, device, continues)
  local options = { seed = recipe.seed, dtype = recipe.dtype, device = device, micro = recipe.micro < recipe.batch,
    moments = optim.definition(recipe.optim).moments, continues = continues or false }
  local groups = {}
  for k, trained in ipairs(recipe:trained_modules()) do
    groups[k] = Group.new(trained.name, trained.module, options)
    groups[k].loss = trained.loss
  end
  return groups
end

--- Keeps the groups that a stage or a later one trains and frees the others.
---@return perigee.Group[] kept, perigee.Group[] active  those of the stage itself
function Group.of_stage(groups, recipe, stage)
  local active, kept = {}, {}
  for _, group in ipairs(groups) do
    local used = not group.loss
    for _, entry in ipairs(stage.losses) do used = used or entry.name == group.loss end
    if used then active[#active + 1] = group end
    if used or describe.trains(recipe, stage.index, group.loss) then kept[#kept + 1] = group else group:free() end
  end
  return kept, active
end

return Group
