--- A step as one executable: gradients | reduce | update. The stage's program runs once for each piece of the batch,
--- each piece's gradients are added to their sum, and the update follows, all over one arena; on a device with queues
--- that is one graph. Values that change from step to step are its inputs, so nothing is traced or captured again.
local ffi = require "ffi"
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local reading = require "perigee.core.reading"
local update = require "perigee.train.update"
local op = require "perigee.core.op"
local program, tensor = core.program, core.tensor

local M = {}

---@class perigee.Step
---@field executable perigee.Executable
---@field plan perigee.Plan  of the gradients of one piece
local Step = {}
Step.__index = Step

--- The sum over the pieces, planned, of all groups that need one; nil where none does.
local function planned_sum(groups, pieces, first, device)
  local p = program.new "reduce"
  for _, group in ipairs(groups) do group:reduce(p, pieces, first) end
  return #p.nodes > 0 and core.plan.build(p, {}, { device = device }) or nil
end

--- The values that differ between pieces: inputs but for the losses' weights, and the losses and samples' numbers.
local function split_of(plan)
  local split = {}
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "input" then split[slot.name] = not slot.name:match "^weight "
    elseif slot.kind == "output" then
      split[slot.name] = slot.name:match "^loss " ~= nil or slot.name:match "^sample " ~= nil
    end
  end
  return split
end

--- gradients | reduce, piece after piece | update.
local function parts_of(options)
  local plan, groups, pieces, device = options.plan, options.groups, options.pieces, options.device
  local parts, split = {}, split_of(plan)
  local first = planned_sum(groups, pieces, true, device)
  local more = pieces > 1 and planned_sum(groups, pieces, false, device)
  for piece = 1, pieces do
    parts[#parts + 1] = { plan = plan, piece = piece, split = split }
    local sum = piece == 1 and first or more
    if sum then parts[#parts + 1] = { plan = sum } end
  end
  parts[#parts + 1] = { plan = update.plan(options.optim, groups, device) }
  return parts
end

--- Where the samples' numbers lie, by stream: behind the first `before` numbers. The second result is how many numbers
--- there are then.
local function samples_of(plan, pieces, before)
  local samples, names, sizes = {}, {}, {}
  for _, slot in ipairs(plan.slots) do
    local name = slot.kind == "output" and slot.name:match "^sample (.*)$"
    if name then names[#names + 1], sizes[name] = name, pieces * slot.value:numel() end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    samples[name] = { first = before + 1, count = sizes[name] }
    before = before + sizes[name]
  end
  return samples, before
end

---@class perigee.StepOptions
---@field plan perigee.Plan  the gradients of one piece
---@field into table<string, perigee.Tensor>  the place of each gradient, by output name
---@field groups perigee.Group[]
---@field optim perigee.Optimiser
---@field losses table[]  in the order of their numbers
---@field seed integer
---@field micro integer   images a piece
---@field pieces integer
---@field dtype string
---@field device string
---@field ahead integer   steps that may be queued while an earlier one's numbers are awaited

--- A step of so many pieces.
---@param options perigee.StepOptions
---@return perigee.Step
function M.build(options)
  local pieces, device, stat = options.pieces, options.device, op.stat(options.dtype)
  local samples, count = samples_of(options.plan, pieces, #options.losses * pieces)
  local self = setmetatable({
    plan = options.plan, seed = options.seed, micro = options.micro, pieces = pieces, losses = options.losses,
    readings = {}, samples = samples,
    -- each loss by pieces; what streams say of the samples; the squared norm
    numbers = tensor.empty({ count + 1 }, stat, { device = device }),
    state = tensor.empty({ 3 * pieces }, "int64", { device = device }), hyper = update.hyper(options.optim, device),
    states = ffi.new("int64_t[?]", 3 * pieces),
  }, Step)
  local into = { squares = self.numbers:narrow(1, self.numbers.shape[1], 1):reshape {} }
  for name, t in pairs(options.into) do into[name] = t end
  for k, entry in ipairs(options.losses) do
    into["loss " .. entry.name] = self.numbers:narrow(1, (k - 1) * pieces + 1, pieces)
  end
  for name, place in pairs(samples) do
    into["sample " .. name] = self.numbers:narrow(1, place.first, place.count)
  end
  self.executable = core.executable.sequence(parts_of(options), { into = into })
  for k = 1, options.ahead + 1 do self.readings[k] = reading.new(device, stat, self.numbers.shape[1]) end
  return self
end

--- Sets the random numbers of each piece: (seed, steps done before, first sample of the piece in the whole batch).
local function set_states(self, step)
  for piece = 0, self.pieces - 1 do
    self.states[3 * piece], self.states[3 * piece + 1] = self.seed, step - 1
    self.states[3 * piece + 2] = piece * self.micro
  end
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(self.state), self.states, 24 * self.pieces))
end

local function run(executable, inputs) executable:run(inputs) end

---@class perigee.StepInput
---@field batch table<string, perigee.Tensor>  a whole batch
---@field step integer                         its number, from 1
---@field optim perigee.Optimiser              the optimiser's settings
---@field ema number                           decay of the moving averages
---@field execute? fun(executable: perigee.Executable, inputs: table)  in place of executable:run(inputs)

--- Queues a step. `inputs`: the losses' weights, by the names of the program's inputs. Returns the reading in which the
--- step's numbers will be.
---@param inputs table<string, perigee.Tensor>
---@param given perigee.StepInput
---@return perigee.Reading
function Step:queue(inputs, given)
  inputs.state, inputs.hyper = self.state, self.hyper
  for name, t in pairs(given.batch) do inputs[name] = t end
  set_states(self, given.step)
  update.settings(self.hyper, given.optim, given.ema, given.step)
  local execute = given.execute or run
  execute(self.executable, inputs)
  local reading_of_step = self.readings[given.step % #self.readings + 1]
  reading_of_step:add(1, self.numbers)
  reading_of_step:close()
  return reading_of_step
end

--- Waits for a reading: the losses by name, means over the pieces; the gradient's norm before clipping; and what
--- streams say of the batch's samples, by their names and "time", a sample's numbers one after the other.
---@return table<string, number> losses, number gradient_norm, table<string, number[]> samples
function Step:numbers_of(held)
  local numbers, sums = held:wait(), {}
  for k, entry in ipairs(self.losses) do
    sums[entry.name] = 0
    for piece = 1, self.pieces do
      sums[entry.name] = sums[entry.name] + numbers[(k - 1) * self.pieces + piece] / self.pieces
    end
  end
  local samples = {}
  for name, place in pairs(self.samples) do
    local list = {}
    for k = 1, place.count do list[k] = numbers[place.first + k - 1] end
    samples[name] = list
  end
  return sums, math.sqrt(numbers[#numbers]), samples
end

function Step:free()
  self.executable:free()
  for _, held in ipairs(self.readings) do held:free() end
  for _, t in ipairs { self.numbers, self.state, self.hyper } do t:free() end
end

return M
