--- Philox4x32-10 written out in Lua: the oracle of everything that is drawn at random (its known answers stand in
--- tests/ops/random.lua).
local bit = require "bit"
local ffi = require "ffi"

local U = ffi.typeof "uint64_t"
local LOW = U(0xffffffff)

local M = {}

--- Four 32-bit words from a counter of four and a key of two.
function M.words(counter, key)
  local c0, c1, c2, c3 = U(counter[1]), U(counter[2]), U(counter[3]), U(counter[4])
  local k0, k1 = U(key[1]), U(key[2])
  for _ = 1, 10 do
    local p0, p1 = U(0xD2511F53) * c0, U(0xCD9E8D57) * c2
    c0, c1, c2, c3 = bit.bxor(bit.rshift(p1, 32), c1, k0), bit.band(p1, LOW), bit.bxor(bit.rshift(p0, 32), c3, k1),
      bit.band(p0, LOW)
    k0, k1 = bit.band(k0 + 0x9E3779B9, LOW), bit.band(k1 + 0xBB67AE85, LOW)
  end
  return { tonumber(c0), tonumber(c1), tonumber(c2), tonumber(c3) }
end

--- A whole number below 2^53 as its low and high 32 bits.
function M.halves(n) return n % 2 ^ 32, math.floor(n / 2 ^ 32) end

--- ⌊(high·2³² + low)·bound / 2⁶⁴⌋ for bound < 2^20: exact in pieces.
function M.below(high, low, bound) return math.floor((high * bound + math.floor(low * bound / 2 ^ 32)) / 2 ^ 32) end

return M
