--- A tensor several times along its dimensions (PyTorch's tile and repeat; `repeat` is a word of Lua's).
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local sizes = require "perigee.core.sizes"

--- x, so many times along each dimension: x:tile(2, 3). Fewer counts than dimensions are for the last ones; with more,
--- dimensions are added in front.
local function tile(x, first, b, c, d, e, f, g, h)
  op.expect("tile", x)
  local counts = sizes("tile", first, b, c, d, e, f, g, h)
  while #counts < #x.shape do table.insert(counts, 1, 1) end
  while #x.shape < #counts do x = ops.unsqueeze(x, 1) end
  for dim, count in ipairs(counts) do
    if count < 0 then op.fail("tile: %d times; expected 0 or more", count) end
    if count ~= 1 then
      local wide, shape = { unpack(x.shape) }, { unpack(x.shape) }
      table.insert(wide, dim, count)
      shape[dim] = count * shape[dim]
      x = ops.reshape(ops.expand(ops.unsqueeze(x, dim), wide), shape)
    end
  end
  return x
end

return { tile = tile, methods = { tile = tile } }
