--- Where the gradients of the feature alignment and of the denoising loss meet: the output of the block whose features
--- are aligned. The one comes from the projector, the other down from the next block; below, they are one sum.
local core = require "perigee.core.ffi"

local M = {}

--- The block whose output a stage's alignment compares: that of the loss that reads the last one. Nil where none does.
---@return integer?
local function compared(stage)
  local last
  for _, entry in ipairs(stage.losses) do
    local block = entry.loss.needs_teacher and entry.loss.settings.block
    if type(block) == "number" then last = math.max(last or 0, block) end
  end
  return last
end

--- The tap at a block's output, or where none is named, at the output of the one that is aligned.
---@param stage table
---@param block? integer
---@return string
function M.tap(stage, block) return "block " .. (block or compared(stage) or 0) end

--- The name of an alignment loss that reaches above a block: it is in the gradient that comes down.
local function above(stage, block)
  for _, entry in ipairs(stage.losses) do
    local deepest = entry.loss.needs_teacher and entry.loss.settings.block or 0
    for _, pair in ipairs(entry.loss.pairs or {}) do deepest = math.max(deepest, pair.student) end
    if type(deepest) == "number" and deepest > block then return entry.name, deepest end
  end
end

--- An error where a stage has no such angle.
---@param what string       who asks
---@param stage table
---@param student perigee.Module
---@param block? integer
function M.check(what, stage, student, block)
  local denoises, aligned = false, compared(stage)
  for _, entry in ipairs(stage.losses) do denoises = denoises or entry.loss.is_denoising end
  if not denoises then core.fail("%s: the stage '%s' has no denoising loss", what, stage.name) end
  if not block and not aligned then
    core.fail("%s: no loss of the stage '%s' compares a block's output with the teacher's features; attention "
      .. "alignment alone has no angle there: use signal.holistic_angle", what, stage.name)
  end
  block = block or aligned
  if block > (student.blocks and student.depth or 0) then
    core.fail("%s: block %d of a student with %d blocks", what, block, student.blocks and student.depth or 0)
  end
  local other, deepest = above(stage, block)
  if other then
    core.fail("%s: the loss '%s' reaches block %d, so the gradient that comes down to block %d's output is not "
      .. "denoising's alone: use signal.holistic_angle", what, other, deepest, block)
  end
end

--- Does a value depend on `target` in another way than through `except`?
local function depends(value, target, except)
  local seen, open = { [except] = true }, { value }
  while #open > 0 do
    local v = table.remove(open)
    if rawequal(v, target) then return true end
    local node = not seen[v] and v.node
    seen[v] = true
    for _, input in ipairs(node and not node.definition.cuts_gradient and node.inputs or {}) do
      if input and not seen[input] then open[#open + 1] = input end
    end
  end
  return false
end

--- The two gradients at a block's output, [B,..]: of the alignment that reads it, and of denoising.
---@param trace perigee.StreamTrace
---@param block? integer
---@return perigee.Value alignment, perigee.Value denoising
function M.gradients(trace, block)
  local tap = M.tap(trace.stage, block)
  local fork = trace.forks[tap]
  if not fork then
    core.fail("stage '%s': no alignment loss reads the output of %s, so there is no angle", trace.stage.name, tap)
  end
  for _, entry in ipairs(trace.stage.losses) do
    local value = trace.losses[entry.name]
    if entry.loss.needs_teacher and depends(value, fork.trunk, fork.branch_value) then
      core.fail("stage '%s': the loss '%s' reaches the output of %s from above too, so the gradient that comes down "
        .. "to it is not denoising's alone: use signal.holistic_angle", trace.stage.name, entry.name, tap)
    end
  end
  if not fork.whole or not fork.branch then
    core.fail("stage '%s': no gradient reaches the output of %s", trace.stage.name, tap)
  end
  return fork.branch, fork.whole - fork.branch
end

return M
