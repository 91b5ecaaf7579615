--- The ops' test harness finds the mistakes that it is there to find.
local door = require "perigee.core.ffi"
local core = require "perigee.core"
local harness = dofile(door.home .. "/tests/lua/ops_harness.lua")

local function same(x) return x end

local function forward_fails(message, run, more)
  local case = { name = message, run = run, inputs = { { shape = { 4, 33 } } }, elementwise = same, compiled = false }
  for key, value in pairs(more or {}) do case[key] = value end
  local fine, text = pcall(harness.forward, case, "float32", "cpu")
  assert.is_false(fine)
  assert.matches(message, text, 1, true)
end

describe("the ops' test harness", function()
  it("accepts what is right", function()
    harness.forward({ name = "copy", run = function(ops, x) return ops.copy(x) end, inputs = { { shape = { 4, 33 } } },
      elementwise = same }, "float32", "cpu")
  end)

  it("finds wrong numbers, shapes and counts", function()
    forward_fails("off by", function(_, x) return x * 1.0001 end)
    forward_fails("element 2 of 132", function(ops, x)
      local y = ops.copy(x)
      y:pointer()[1] = 0 / 0
      return y
    end)
    forward_fails("expected [4,33]", function(_, x) return x:reshape({ 33, 4 }):contiguous() * 1 end,
      { elementwise = false, reference = function(_, x) return x end })
    forward_fails("2 results, the reference has 1", function(_, x) return x * 1, x * 1 end)
    forward_fails("not compiled alike", function(ops, x)
      if core.tensor.is_tensor(x) then return ops.copy(x) end
      error "not compiled alike"
    end, { compiled = true })
  end)

  it("finds outputs that were not written, and writes outside them", function()
    forward_fails("off by", function(_, x) return core.tensor.empty(x.shape, x.dtype) end)
    for place, where in pairs { [-1] = "before its start", [132] = "after its end" } do
      forward_fails(where, function(ops, x)
        local y = ops.copy(x)
        y:pointer()[place] = 1
        return y
      end)
    end
  end)

  it("finds changed inputs", function()
    forward_fails("input 1 was changed", function(ops, x)
      local y = ops.copy(x)
      x:pointer()[0] = 7
      return y
    end)
  end)

  it("finds results that depend on threads or strides", function()
    forward_fails("differs with more threads", function(_, x) return x + 1e-6 * (tonumber(door.C.pg_threads()) - 1) end,
      { elementwise = same })
    forward_fails("differs for strided inputs", function(ops, x)
      return x:is_contiguous() and ops.copy(x) or x + 1e-6
    end)
  end)

  local function gradients_fail(message, run, check)
    local case = { name = message, run = run, inputs = { { shape = { 3, 5 } } }, gradients = { 1 } }
    local fine, text = pcall(check or harness.differences, case, "float32")
    assert.is_false(fine)
    assert.matches(message, text, 1, true)
  end

  it("finds wrong gradients", function()
    gradients_fail("by finite differences", function(ops, x) return ops.stop_gradient(x) * x end)
    gradients_fail("no gradient flows", function(ops, x) return ops.stop_gradient(x) * 1 end)
    gradients_fail("gradient of input 1", function(ops, x)
      return x.dtype == "float32" and x * 1.001 or x * 1
    end, harness.gradients)
  end)

  it("finds errors that do not come, or come with other words", function()
    local case = { name = "error", run = function(_, x) return x * 1 end, inputs = { { shape = { 1 } } }, error = "no" }
    assert.has_error(function() harness.fails(case) end, "error: no error, expected one with 'no'")
    case.run = function() error("yes", 0) end
    assert.has_error(function() harness.fails(case) end, "error: the error is 'yes', expected 'no' in it")
  end)

  it("finds mistakes in the cases", function()
    assert.has_error(function() harness.validate { name = "x", run = same, tolerence = 1 } end,
      "case x: unknown key 'tolerence'")
    assert.has_error(function() harness.validate { name = "x" } end, "a case needs a name and a run function")
  end)
end)
