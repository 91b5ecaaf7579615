--- Labels as rows of 0 and 1.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"

local fail = op.fail

--- labels [...], whole numbers from 0, as int64 [..., classes]: 1 at the label's place, 0 elsewhere. A tensor's labels
--- are checked, and `classes` may be left out: one more than the largest. A symbolic value's are not checked; a label
--- that is no class gives a row of zeros.
---@param classes? integer
local function one_hot(labels, classes)
  if not op.is_operand(labels) then fail("one_hot: the labels are a %s, not a tensor", type(labels)) end
  if labels.dtype ~= "int32" and labels.dtype ~= "int64" then
    fail("one_hot: the labels are %s; they must be int32 or int64", labels.dtype)
  end
  if program.of(labels) then
    if not classes then fail "one_hot: in a trace the labels are not known; write ops.one_hot(labels, classes)" end
  elseif op.numel(labels.shape) > 0 then
    local least, most = labels:min():item(), labels:max():item()
    classes = classes or most + 1
    if least < 0 or most >= classes then
      fail("one_hot: labels from %d to %d; %d classes are 0 to %d", least, most, classes, classes - 1)
    end
  end
  if type(classes) ~= "number" or classes < 1 or classes % 1 ~= 0 then
    fail("one_hot: %s classes; expected a whole number of at least 1", tostring(classes))
  end
  local class = ops.arange_like(labels, classes, { dtype = labels.dtype })
  return ops.cast(ops.equal(ops.unsqueeze(labels, -1), class), "int64")
end

return { one_hot = one_hot, methods = { one_hot = one_hot } }
