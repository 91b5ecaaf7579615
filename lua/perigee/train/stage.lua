--- A stage as a program: the batch in, every loss and every parameter's gradient out.
local core = require "perigee.core"
local Context = require "perigee.losses.context"
local program = core.program

local M = {}

--- Records a stage's forward pass and losses.
---@param options { batch: integer, fixed_time?: boolean, drop_labels?: boolean }
---@return { program, losses: table<string, perigee.Value>, weights: table<string, perigee.Value>, total: perigee.Value, context }
function M.trace(recipe, stage, options)
  local p = program.new(("%s, stage %s"):format(recipe.name, stage.name))
  local stat = recipe.dtype == "float64" and "float64" or "float32"
  local batch = {}
  for _, field in ipairs(recipe.data:fields()) do
    local shape = { options.batch }
    for _, size in ipairs(field.shape) do shape[#shape + 1] = size end
    batch[field.name] = p:input(field.name, shape, field.dtype)
  end
  local matching = recipe:flow_matching(stage)
  local context = Context.new {
    student = recipe.student, teacher = recipe:teacher_model(), modules = recipe:loss_modules(), data = recipe.data, batch = batch,
    labels = batch.labels, state = p:input("state", { 3 }, "int64"), dtype = recipe.dtype,
    path = matching and matching.path, time = matching and matching.time, drop_labels = options.drop_labels ~= false,
    t = options.fixed_time and p:input("time", { options.batch }, stat) or nil,
  }
  local losses, weights, total = {}, {}, nil
  for _, entry in ipairs(stage.losses) do
    local value = entry.loss:compute(context)
    weights[entry.name] = p:input("weight " .. entry.name, {}, stat)
    losses[entry.name] = value
    local term = value * weights[entry.name]
    total = total and total + term or term
  end
  return { program = p, losses = losses, weights = weights, total = total, context = context }
end

--- The gradients program of a stage. `parameters` lists { name, tensor, into } for what is trained; a parameter that no
--- loss reaches gets a zero gradient.
---@return perigee.Plan plan, table<string, perigee.Tensor> into
function M.plan(recipe, stage, options)
  local trace = M.trace(recipe, stage, options)
  local p = trace.program
  local wrt, into = {}, {}
  for k, entry in ipairs(options.parameters) do wrt[k] = p:capture(entry.tensor) end
  local seed = core.tensor.tensor(1, {}, trace.total.dtype)
  local gradients = core.gradient(p, { trace.total }, { seed }, wrt)
  local outputs = { { name = "total", value = trace.total } }
  for _, entry in ipairs(stage.losses) do
    outputs[#outputs + 1] = { name = "loss " .. entry.name, value = trace.losses[entry.name] }
  end
  local reached = {}
  for k, entry in ipairs(options.parameters) do
    if gradients[k] then
      local name = "gradient " .. entry.name
      outputs[#outputs + 1] = { name = name, value = gradients[k] }
      into[name], reached[entry.name] = entry.into, true
    end
  end
  return require("perigee.core.plan").build(p, outputs, { device = options.device, fuse = options.fuse }), into, reached
end

return M
