local tolerance = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 1e-2 }

--- Turns [images,tokens,2,half] of random angles, as the op takes them.
local function turns_of(ops, angles, dtype)
  local s = angles.shape
  local stat = dtype == "float64" and "float64" or "float32"
  local one = ops.cast(angles, stat):reshape { s[1], s[2], 1, s[3] }
  return ops.concat({ ops.cos(one), ops.sin(one) }, 3)
end

local cases = {}
--- qkv [B,N,3,H,d], the first `skip` tokens left out; `images`: angles of their own for every image.
local function case(shape, options, images)
  local angles = { images and shape[1] or 1, shape[2] - options.skip, shape[5] / 2 }
  cases[#cases + 1] = {
    name = ("rotary %s, %d left out%s%s"):format(table.concat(shape, "x"), options.skip,
      options.interleaved and ", interleaved" or "", images and ", by images" or ""),
    run = function(ops, x, a) return ops.rotary(x, turns_of(ops, a, x.dtype), options) end,
    inputs = { { shape = shape }, { shape = angles, range = { -3, 3 }, dtype = "float32" } },
    op = "rotary",
    gradients = shape[5] < 10 and { 1 } or nil,
    tolerance = tolerance,
  }
end
case({ 2, 5, 3, 3, 2 }, { skip = 0 })
case({ 2, 5, 3, 2, 4 }, { skip = 2 }, true)
case({ 1, 4, 3, 2, 6 }, { skip = 1, interleaved = true })
case({ 3, 7, 3, 2, 8 }, { skip = 3, interleaved = true }, true)
case({ 2, 33, 3, 3, 64 }, { skip = 1 })
case({ 2, 31, 3, 2, 72 }, { skip = 0, interleaved = true }, true)
case({ 2, 32, 3, 2, 66 }, { skip = 5 }, true)

-- Against numbers worked out by hand: one token at a right angle, one head of size 4.
for interleaved, expected in pairs { [false] = { -3, -4, 1, 2 }, [true] = { -2, 1, -4, 3 } } do
  cases[#cases + 1] = {
    name = "rotary by a right angle" .. (interleaved and ", interleaved" or ""),
    run = function(ops, x, turns)
      local stat = x.dtype == "float64" and "float64" or "float32"
      return ops.rotary(x, ops.cast(turns, stat), { interleaved = interleaved })
    end,
    inputs = { { values = { { { { { 1, 2, 3, 4 } }, { { 1, 2, 3, 4 } }, { { 5, 6, 7, 8 } } } } } },
      { values = { { { { 0, 0 }, { 1, 1 } } } } } },
    reference = function() return { { { { expected }, { expected }, { { 5, 6, 7, 8 } } } } } end,
    tolerance = tolerance,
  }
end

cases[#cases + 1] = { name = "rotary of an odd head",
  run = function(ops, x, a) return ops.rotary(x, a) end,
  inputs = { { shape = { 1, 2, 3, 1, 3 } }, { shape = { 1, 2, 2, 1 } } },
  error = "rotary: heads of size 3; rotary positions turn pairs, so it must be even" }
cases[#cases + 1] = { name = "rotary by turns of another grid",
  run = function(ops, x, a) return ops.rotary(x, a, { skip = 1 }) end,
  inputs = { { shape = { 2, 5, 3, 1, 4 } }, { shape = { 1, 5, 2, 2 } } },
  error = "with 1 tokens left out, turns are [1,5,2,2]; expected [1 or 2,4,2,2]" }
return cases
