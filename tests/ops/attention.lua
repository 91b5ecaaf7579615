local core = require "perigee.core"
local plan = require "perigee.core.plan"

--- Queries (1), keys (2) or values (3) of a packed qkv, with a dimension of size 1 at `place`.
local function part(ops, qkv, which, place)
  return ops.unsqueeze(ops.permute(ops.select(qkv, 3, which), { 1, 3, 2, 4 }), place)
end

--- softmax(scale·Q·Kᵀ)·V written out as products and sums over [B,H,N,N,d].
local function reference(scale)
  return function(ops, qkv)
    local logits = ops.sum(part(ops, qkv, 1, 4) * part(ops, qkv, 2, 3), 5) * (scale or 1 / math.sqrt(qkv.shape[5]))
    local map = ops.unsqueeze(ops.softmax(logits, 4), 5)
    return ops.permute(ops.sum(map * part(ops, qkv, 3, 3), 4), { 1, 3, 2, 4 })
  end
end

local function case(name, shape, options)
  local scale = options and options.scale
  return {
    name = "attention " .. name,
    run = function(ops, qkv) return ops.attention(qkv, { scale = scale }) end,
    inputs = { { shape = shape, range = options and options.range } },
    reference = reference(scale),
    gradients = { 1 },
    tolerance = options and options.tolerance or { float32 = 1e-5, bfloat16 = 1e-2 },
    gradient_tolerance = options and options.gradient_tolerance,
    difference_tolerance = options and options.difference_tolerance,
  }
end

--- Scratch bytes of the attention and its backward at a number of tokens.
local function scratch(tokens)
  local p = core.program.new "scratch"
  local qkv = p:input("qkv", { 1, tokens, 3, 2, 64 }, "float32")
  local loss = core.ops.sum(core.ops.attention(qkv))
  local gradients = core.gradient(p, { loss }, { core.ops.full_like(loss, 1) }, { qkv })
  local sum = 0
  for _, call in ipairs(plan.build(p, { { name = "gradient", value = gradients[1] } }).calls) do
    sum = sum + call.scratch
  end
  return sum
end

return {
  case("1 token, heads of 64", { 2, 1, 3, 2, 64 }),
  case("31 tokens, heads of 8", { 2, 31, 3, 3, 8 }),
  case("33 tokens, heads of 24", { 1, 33, 3, 2, 24 }),
  case("64 tokens, heads of 64", { 1, 64, 3, 2, 64 }), -- this and the next have engines of cuDNN's forward and backward
  case("96 tokens, heads of 72", { 1, 96, 3, 2, 72 }),
  case("65 tokens, heads of 72", { 1, 65, 3, 1, 72 }),
  case("130 tokens, heads of 32", { 1, 130, 3, 1, 32 }),
  case("257 tokens, heads of 64", { 1, 257, 3, 1, 64 }, { tolerance = { float32 = 2e-5, bfloat16 = 1e-2 } }),
  case("257 tokens, heads of 5", { 1, 257, 3, 2, 5 }, { tolerance = { float32 = 2e-5, bfloat16 = 1e-2 } }),
  case("144 tokens, heads of 8", { 1, 144, 3, 1, 8 }), -- on GPUs 16 rows past a block are one warp
  case("145 tokens, heads of 8", { 1, 145, 3, 1, 8 }),
  case("with a scale of its own", { 2, 7, 3, 2, 6 }, { scale = 0.3 }),
  case("with logits beyond ±200", { 1, 40, 3, 2, 8 }, {
    range = { -17, 17 }, tolerance = { float32 = 2e-4, bfloat16 = 2e-2 }, difference_tolerance = 1e-4,
    gradient_tolerance = { float32 = 2e-2, bfloat16 = 0.5 },
  }),
  { name = "attention, its plain composition", op = "attention",
    run = function(ops, qkv) return ops.attention(qkv) end,
    inputs = { { shape = { 2, 66, 3, 3, 12 } } },
    tolerance = { float32 = 1e-5, bfloat16 = 1e-2 } },
  { name = "attention's scratch grows linearly with the number of tokens",
    check = function()
      local small, middle, large = scratch(256), scratch(1024), scratch(4096)
      assert(middle <= 4 * small and large <= 4 * middle, ("%d, %d, %d bytes"):format(small, middle, large))
    end },
  { name = "attention of an unpacked tensor", error = "expected [images,tokens,3,heads,size]",
    run = function(ops, x) return ops.attention(x) end, inputs = { { shape = { 2, 3, 4, 5 } } } },
  { name = "attention with an unknown option", error = "unknown option 'scales'",
    run = function(ops, x) return ops.attention(x, { scales = 1 }) end, inputs = { { shape = { 1, 2, 3, 1, 4 } } } },
}
