--- Random numbers against Philox4x32-10 written out in Lua (tests/lua/philox.lua), itself held against Random123's
--- known answers.
local bit = require "bit"
local ffi = require "ffi"
local core = require "perigee.core"
local op = require "perigee.core.op"
local random = require "tests.lua.philox"

local ops, tensor = core.ops, core.tensor
local philox = random.words
local U = ffi.typeof "uint64_t"

local function state(seed, step, first) return tensor.tensor({ seed, step, first or 0 }, { 3 }, "int64") end

--- The words of `block` for a seed and step below 2^32 and a purpose's number.
local function words(seed, step, purpose, block)
  local counter = { block % 2 ^ 32, math.floor(block / 2 ^ 32), step, purpose }
  return philox(counter, { seed % 2 ^ 32, math.floor(seed / 2 ^ 32) })
end

--- An op with its purpose as a number.
local function draw(name, shape, s, purpose, more)
  local attributes = { shape = shape, purpose = purpose }
  for k, v in pairs(more or {}) do attributes[k] = v end
  return op.defined[name](s, attributes)
end

local places = { { 0, 0, 0, 0 }, { 7, 3, 1234567, 5 }, { 2 ^ 32 + 9, 4000000000, 2 ^ 31 - 1, 2 ^ 33 + 1 } }

local function checksum(t)
  local array, n = tensor.to_host(t)
  local bits, sum = ffi.cast("uint32_t *", array), U(0)
  for k = 0, n - 1 do sum = sum * 6364136223846793005ULL + bits[k] end
  return bit.tohex(sum)
end

local cases = {}
local function case(name, check) cases[#cases + 1] = { name = name, check = check } end

case("Philox's known answers", function()
  local ones = 0xffffffff
  assert.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, philox({ 0, 0, 0, 0 }, { 0, 0 }))
  assert.same({ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, philox({ ones, ones, ones, ones }, { ones, ones }))
  assert.same({ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
    philox({ 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 }))
end)

case("random_uniform is Philox's words", function()
  for _, at in ipairs(places) do
    local seed, step, purpose, first = unpack(at)
    local got = draw("random_uniform", { 37, 3 }, state(seed, step, first), purpose, { dtype = "float32" }):totable()
    for k = 0, 37 * 3 - 1 do
      local index = first * 3 + k
      local word = words(seed, step, purpose, math.floor(index / 4))[index % 4 + 1]
      assert.equal(math.floor(word / 256) / 2 ^ 24, got[math.floor(k / 3) + 1][k % 3 + 1])
    end
  end
end)

case("random_normal is Box and Muller's transform", function()
  for _, at in ipairs(places) do
    local seed, step, purpose, first = unpack(at)
    local got = draw("random_normal", { 301 }, state(seed, step, first), purpose, { dtype = "float32" }):totable()
    for k = 0, 300 do
      local index = first + k
      local w, pair = words(seed, step, purpose, math.floor(index / 4)), index % 4 < 2 and 1 or 3
      local u = math.floor(w[pair] / 2)
      u = (u % 2 == 0 and u + 1 or u) / 2 ^ 31
      local turn = 2 * math.pi * w[pair + 1] / 2 ^ 32
      local expected = math.sqrt(-2 * math.log(u)) * (index % 2 == 0 and math.cos(turn) or math.sin(turn))
      assert.near(expected, got[k + 1], 2e-6 * (1 + math.abs(expected)))
    end
  end
end)

case("random_integers and random_permutation", function()
  local function below(seed, step, purpose, index, high)
    local w, pair = words(seed, step, purpose, math.floor(index / 2)), index % 2 == 0 and 1 or 3
    return random.below(w[pair], w[pair + 1], high)
  end
  for _, at in ipairs(places) do
    local seed, step, purpose, first = unpack(at)
    local s = state(seed, step, first)
    for k, v in ipairs(draw("random_integers", { 101 }, s, purpose, { high = 1000 }):totable()) do
      assert.equal(below(seed, step, purpose, first + k - 1, 1000), v)
    end
    local expected, n = {}, 257
    for k = 1, n do expected[k] = k - 1 end
    for k = 0, n - 2 do
      local other = k + below(seed, step, purpose, k, n - k)
      expected[k + 1], expected[other + 1] = expected[other + 1], expected[k + 1]
    end
    assert.same(expected, draw("random_permutation", { n }, s, purpose):totable())
  end
  assert.same({ 0 }, ops.random_permutation(1, { state = state(1, 1), purpose = "p" }):totable())
end)

case("the same bits on every instruction set and number of threads", function()
  local C = require("perigee.core.ffi").C
  local before = C.pg_threads()
  for threads = 1, 3 do
    C.pg_threads_set(threads)
    local s = state(42, 7, 3)
    local normal = ops.random_normal({ 100003 }, { state = s, purpose = "noise" })
    local uniform = ops.random_uniform({ 100003 }, { state = s, purpose = "time" })
    assert.equal("c4eafca766cf30f4", checksum(normal))
    assert.equal("3ca7cbb4f4453a21", checksum(uniform))
  end
  C.pg_threads_set(before)
end)

case("a micro-batch draws what the batch draws", function()
  for _, name in ipairs { "random_normal", "random_uniform", "random_integers" } do
    local options = { state = state(5, 9, 0), purpose = "x", high = name == "random_integers" and 50 or nil }
    local whole = ops[name]({ 12, 3, 5 }, options):totable()
    for first = 0, 11, 4 do
      options.state = state(5, 9, first)
      assert.same({ unpack(whole, first + 1, first + 4) }, ops[name]({ 4, 3, 5 }, options):totable())
    end
  end
end)

case("every dtype has float32's numbers", function()
  local s = state(1, 2)
  for _, name in ipairs { "random_normal", "random_uniform" } do
    local single = ops[name]({ 999 }, { state = s, purpose = "x" })
    local double = ops[name]({ 999 }, { state = s, purpose = "x", dtype = "float64" })
    local half = ops[name]({ 999 }, { state = s, purpose = "x", dtype = "bfloat16" })
    assert.same(single:totable(), double:totable())
    assert.same(single:to "bfloat16":totable(), half:totable())
  end
end)

case("moments, range and independence", function()
  local s, n = state(3, 0), 200000
  local z = ops.random_normal({ n }, { state = s, purpose = "z" }):to "float64"
  local u = ops.random_uniform({ n }, { state = s, purpose = "z" }):to "float64"
  local other = ops.random_normal({ n }, { state = s, purpose = "other" }):to "float64"
  local later = ops.random_normal({ n }, { state = state(3, 1), purpose = "z" }):to "float64"
  local five = 5 / math.sqrt(n) -- standard deviations
  assert.near(0, z:mean():item(), five)
  assert.near(1, (z ^ 2):mean():item(), five * math.sqrt(2))
  assert.near(0, (z ^ 3):mean():item(), five * math.sqrt(15))
  assert.near(3, (z ^ 4):mean():item(), five * math.sqrt(96))
  assert.near(0, (z * other):mean():item(), five)
  assert.near(0, (z * later):mean():item(), five)
  assert.near(0, (z:narrow(1, 1, n - 1) * z:narrow(1, 2, n - 1)):mean():item(), five)
  assert.near(0.5, u:mean():item(), five / math.sqrt(12))
  assert.near(1 / 3, (u ^ 2):mean():item(), five * math.sqrt(4 / 45))
  assert.is_true(u:min():item() >= 0 and u:max():item() < 1)
  local k = ops.random_integers({ n }, { state = s, purpose = "k", high = 7 })
  for value = 0, 6 do
    assert.near(n / 7, k:equal(value):sum():item(), 5 * math.sqrt(n * 6 / 49))
  end
  local p = ops.random_permutation(5000, { state = s, purpose = "p" }):totable()
  table.sort(p)
  for i = 1, 5000 do assert.equal(i - 1, p[i]) end
end)

case("inside a program the state is an input", function()
  local noise = core.compile(function(x, s)
    return x + ops.random_normal({ 4, 5 }, { state = s, purpose = "noise" })
  end, { tensor.tensor { 0 }, state(0, 0) })
  for step = 1, 3 do
    local s = state(11, step)
    local expected = ops.random_normal({ 4, 5 }, { state = s, purpose = "noise" })
    assert.same(expected:totable(), noise(tensor.tensor { 0 }, s):totable())
  end
end)

-- Other devices draw the CPU's bits: from the start, from the middle of a block, and with numbers beyond 32 bits.
local function drawn(o, s)
  local function options(dtype, more)
    local list = { state = s, purpose = "x", dtype = dtype }
    for k, v in pairs(more or {}) do list[k] = v end
    return list
  end
  local list = {}
  for _, dtype in ipairs { "float32", "bfloat16" } do
    for _, shape in ipairs { { 1 }, { 31 }, { 33, 3 }, { 257 }, { 72, 64 } } do
      list[#list + 1] = o.random_normal(shape, options(dtype))
      list[#list + 1] = o.random_uniform(shape, options(dtype))
    end
  end
  list[#list + 1] = o.random_integers({ 101, 3 }, options(nil, { high = 1000 }))
  list[#list + 1] = o.random_integers({ 33 }, options(nil, { high = 2 ^ 40 }))
  for _, n in ipairs { 1, 2, 257, 1000 } do list[#list + 1] = o.random_permutation(n, options()) end
  return unpack(list)
end
for k, values in ipairs { { 0, 0, 0 }, { 7, 3, 5 }, { 2 ^ 40 + 9, 4000000000, 2 ^ 33 + 1 } } do
  cases[#cases + 1] = {
    name = "the CPU's bits, state " .. k, dtypes = { "float32" }, strided = false, tolerance = 0,
    inputs = { { values = values, dtype = "int64" } }, run = drawn, reference = drawn,
  }
end

local function fails(name, message, run) cases[#cases + 1] = { name = name, run = run, error = message } end
fails("a state of floats", "random_normal: the state is float32 [3], expected int64 [3]", function()
  return ops.random_normal({ 2 }, { state = tensor.tensor { 1, 2, 3 }, purpose = "x" })
end)
fails("no purpose", "the purpose is a nil; give a name", function()
  return ops.random_normal({ 2 }, { state = state(1, 1) })
end)
fails("no high", "random_integers: high is nil", function()
  return ops.random_integers({ 2 }, { state = state(1, 1), purpose = "x" })
end)
fails("a typing error", "random_uniform: unknown option 'sed'", function()
  return ops.random_uniform({ 2 }, { sed = 1 })
end)
return cases
