--- Cases that every optimiser's op stands (core/update.lua), against its step by other ops in float64.
local core = require "perigee.core"
local door = require "perigee.core.ffi"

local tensor, ops = core.tensor, core.ops

local M = {}

--- Reproducible numbers between -1 and 1.
local function noise(n, seed)
  local list = {}
  for k = 1, n do
    seed = seed * 16807 % 2147483647
    list[k] = 2 * seed / 2147483647 - 1
  end
  return list
end

--- ‖a − b‖ / ‖b‖.
local function distance(a, b)
  local difference = a:to "float64" - b:to "float64"
  return math.sqrt(ops.square_sum(difference):item() / math.max(ops.square_sum(b:to "float64"):item(), 1e-300))
end

function M.expect_near(what, got, expected, tolerance)
  local d = distance(got, expected)
  if d > tolerance or d ~= d then error(("%s is off by %.3g, allowed %.3g"):format(what, d, tolerance), 0) end
end
local expect_near = M.expect_near

local function in_dtype(state, dtype)
  local s = {}
  for name, t in pairs(state) do s[name] = t:to(dtype):clone() end
  return s
end

--- The gradient that a step works with: no longer than `clip` says.
function M.clipped(gradient, clip)
  local norm = math.sqrt(ops.sum(gradient * gradient):item())
  return gradient * (clip > 0 and math.min(1, clip / (norm + 1e-6)) or 1)
end

---@class perigee.UpdateCases
---@field name string
---@field moments string[]
---@field positive? table<string, boolean>  moments that are squares
---@field settings table<string, table>     by what is said of them; `clip` among them
---@field hyper fun(h: table): number[]
---@field step fun(s: table, h: table): table  the step by other ops: parameters, moments, average; s also has gradient
---@field kept? table<string, number>       how far the whole step may be off, by dtype

--- The cases of one optimiser.
---@param o perigee.UpdateCases
function M.cases(o)
  local cases, op = {}, ops[o.name]
  local state_names = { "parameters" }
  for _, moment in ipairs(o.moments) do state_names[#state_names + 1] = moment end
  state_names[#state_names + 1] = "average"
  local names = {}
  for name in pairs(o.settings) do names[#names + 1] = name end
  table.sort(names)

  --- A state of n parameters and a gradient, in float64, from numbers that float32 holds.
  local function state_of(n)
    local s = {}
    for k, name in ipairs { "gradient", unpack(state_names) } do
      s[name] = tensor.tensor(noise(n, 12345 + 1000 * k), { n }, "float32"):to "float64"
      if o.positive and o.positive[name] then s[name] = ops.square(s[name]):to "float32":to "float64" end
    end
    return s
  end

  local function hyper_of(h)
    local list = o.hyper(h)
    return tensor.tensor(list, { #list }, "float64")
  end

  for _, name in ipairs(names) do
    local h = o.settings[name]
    for _, n in ipairs { 1, 33, 12289 } do
      for dtype, tolerance in pairs { float64 = 1e-13, float32 = 1e-6 } do
        cases[#cases + 1] = {
          name = ("%s %s, %d parameters, %s"):format(o.name, name, n, dtype),
          check = function()
            local start = state_of(n)
            local expected, s = o.step(start, h), in_dtype(start, dtype)
            s.working, s.hyper, s.square_sum = tensor.empty({ n }, "bfloat16"), hyper_of(h), ops.square_sum(s.gradient)
            op(s)
            for _, key in ipairs(state_names) do expect_near(key, s[key], expected[key], tolerance) end
            local moved = s.parameters:to "float64" - start.parameters
            expect_near("the step", moved, expected.parameters - start.parameters,
              dtype == "float32" and 2e-3 or 1e-10)
            expect_near("working", s.working, s.parameters:to "bfloat16", 0)
            expect_near("gradient", s.gradient, start.gradient, 0)
          end,
        }
      end
    end
  end

  --- On every device: what a step makes of the state and, where it keeps an average and a working copy, of those: the
  --- copy is what the parameters round to.
  local function device_case(name, h, n, whole)
    local function results_of(s, off)
      local list = { s.parameters }
      for _, moment in ipairs(o.moments) do list[#list + 1] = s[moment] end
      if whole then
        list[#list + 1] = s.average
        list[#list + 1] = off
      end
      return unpack(list)
    end
    local inputs = { { values = o.hyper(h), dtype = "float64" }, { shape = { n } } }
    for _, state in ipairs(state_names) do
      inputs[#inputs + 1] = { shape = { n }, range = o.positive and o.positive[state] and { 0.01, 1 } or nil }
    end
    local function named(gradient, ...)
      local s = { gradient = gradient }
      for k, state in ipairs(state_names) do s[state] = (select(k, ...)) end
      if not whole then s.average = nil end
      return s
    end
    return {
      name = ("%s %s, of %d parameters"):format(o.name, name, n), dtypes = { "float32" }, tolerance = 2e-6,
      compiled = false, strided = false, inputs = inputs,
      run = function(_, hyper, gradient, ...)
        local s = named(gradient, ...)
        for _, state in ipairs(state_names) do s[state] = s[state] and s[state]:clone() end
        s.working = whole and tensor.empty({ n }, "bfloat16", { device = gradient.device }) or nil
        s.hyper, s.square_sum = hyper, ops.square_sum(gradient)
        op(s)
        return results_of(s, whole and s.working:to "float32" - s.parameters:to("bfloat16"):to "float32")
      end,
      reference = function(_, _, gradient, ...)
        local s = named(gradient, ...)
        s.average = s.average or s.parameters
        return results_of(o.step(s, h), s.parameters * 0)
      end,
    }
  end

  for _, n in ipairs { 1, 31, 32, 33, 72, 257, 4099 } do
    for _, name in ipairs(names) do cases[#cases + 1] = device_case(name, o.settings[name], n, true) end
    cases[#cases + 1] = device_case("without average and working copy", o.settings[names[1]], n, false)
  end

  --- Bits of all that a step writes, with so many threads.
  local function bits_of_step(threads)
    local before = door.C.pg_threads()
    door.check(door.C.pg_threads_set(threads))
    local s = in_dtype(state_of(30001), "float32")
    s.hyper, s.square_sum = hyper_of(o.settings[names[1]]), ops.square_sum(s.gradient)
    op(s)
    door.C.pg_threads_set(before)
    local list = {}
    for k, key in ipairs(state_names) do
      local array, n = tensor.to_host(s[key])
      list[k] = require("ffi").string(array, n * 4)
    end
    return table.concat(list)
  end

  cases[#cases + 1] = {
    name = o.name .. " has the same bits with any number of threads",
    check = function()
      local bits = bits_of_step(1)
      assert(bits == bits_of_step(2) and bits == bits_of_step(3), "the bits differ")
    end,
  }

  cases[#cases + 1] = {
    name = o.name .. " without average and working copy",
    check = function()
      local h, start = o.settings[names[1]], state_of(40)
      local expected, s = o.step(start, h), in_dtype(start, "float64")
      s.average = nil
      s.hyper, s.square_sum = hyper_of(h), ops.square_sum(s.gradient)
      op(s)
      expect_near("parameters", s.parameters, expected.parameters, 1e-13)
    end,
  }

  cases[#cases + 1] = {
    name = o.name .. " in a program changes the tensors it captured",
    check = function()
      local h, start = o.settings[names[1]], state_of(50)
      local expected, s = o.step(start, h), in_dtype(start, "float64")
      local p, fields = core.program.new "update", {}
      for key, t in pairs(s) do fields[key] = p:capture(t) end
      fields.hyper = p:input("hyper", { #o.hyper(h) }, "float64")
      fields.square_sum = ops.square_sum(fields.gradient)
      op(fields)
      local executable = core.executable.compile(p, { { name = "square", value = fields.square_sum } })
      executable:run { hyper = hyper_of(h) }
      for _, key in ipairs(state_names) do expect_near(key, s[key], expected[key], 1e-13) end
    end,
  }

  cases[#cases + 1] = { name = o.name .. " with buffers of different sizes",
    run = function(_, p, g, hyper)
      local s = { parameters = p, gradient = g, hyper = hyper, square_sum = ops.square_sum(g) }
      for _, moment in ipairs(o.moments) do s[moment] = p end
      op(s)
    end,
    inputs = { { shape = { 4 } }, { shape = { 5 } }, { shape = { 8 } } },
    error = o.name .. ": parameters are [4], gradient is [5]" }
  cases[#cases + 1] = { name = o.name .. " with an unknown field",
    run = function(_, p) op { parameters = p, momentum = p } end,
    inputs = { { shape = { 4 } } },
    error = o.name .. ": unknown field 'momentum'" }
  return cases
end

return M
