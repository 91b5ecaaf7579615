--- Eigenvalues and roots of real symmetric matrices in float64. Eigenvalues: Householder's reduction to tridiagonal
--- form, then the QL method with implicit shifts (Golub and Van Loan, Matrix Computations, §8.3). Roots: Cholesky's
--- method with pivots (§4.2.8). Rows are worked on as they lie in memory.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

local EPSILON = 2 ^ -52
local MOST = 60 -- sweeps for one eigenvalue; a few are usual

--- The diagonal and the off-diagonal (n each, the last of the second zero) of a's tridiagonal form; a (n·n numbers) is
--- lost.
local function tridiagonal(a, n)
  local diagonal, off, w = ffi.new("double[?]", n), ffi.new("double[?]", n), ffi.new("double[?]", n)
  for k = 0, n - 3 do
    local v = a + k * n
    local square = 0
    for j = k + 1, n - 1 do square = square + v[j] * v[j] end
    local norm = math.sqrt(square)
    if v[k + 1] > 0 then norm = -norm end
    off[k], diagonal[k] = norm, v[k]
    if norm ~= 0 then
      v[k + 1] = v[k + 1] - norm
      local scale = -1 / (norm * v[k + 1]) -- of the reflection 1 − scale·v·vᵀ
      -- the rest becomes A − v·wᵀ − w·vᵀ with w = s·A·v − ½·s²·(vᵀ·A·v)·v
      local across = 0
      for i = k + 1, n - 1 do
        local row, sum = a + i * n, 0
        for j = k + 1, n - 1 do sum = sum + row[j] * v[j] end
        w[i] = scale * sum
        across = across + w[i] * v[i]
      end
      for i = k + 1, n - 1 do w[i] = w[i] - 0.5 * scale * across * v[i] end
      for i = k + 1, n - 1 do
        local row, vi, wi = a + i * n, v[i], w[i]
        for j = k + 1, n - 1 do row[j] = row[j] - vi * w[j] - wi * v[j] end
      end
    end
  end
  for k = math.max(n - 2, 0), n - 1 do diagonal[k] = a[k * n + k] end
  if n > 1 then off[n - 2] = a[(n - 2) * n + n - 1] end
  return diagonal, off
end

--- One implicit QL sweep over rows l ... m of d (diagonal) and e (off-diagonal).
local function sweep(d, e, l, m)
  local g = (d[l + 1] - d[l]) / (2 * e[l])
  local r = math.sqrt(g * g + 1)
  g = d[m] - d[l] + e[l] / (g + (g >= 0 and r or -r))
  local s, c, p = 1, 1, 0
  for i = m - 1, l, -1 do
    local f, b = s * e[i], c * e[i]
    r = math.sqrt(f * f + g * g)
    e[i + 1] = r
    if r == 0 then
      d[i + 1], e[m] = d[i + 1] - p, 0
      return
    end
    s, c = f / r, g / r
    g = d[i + 1] - p
    r = (d[i] - g) * s + 2 * c * b
    p = s * r
    d[i + 1], g = g + p, c * r - b
  end
  d[l], e[l], e[m] = d[l] - p, g, 0
end

--- Makes the off-diagonal zero, up to rounding of the largest entries.
local function diagonalise(d, e, n)
  local small = 0
  for k = 0, n - 1 do small = math.max(small, EPSILON * (math.abs(d[k]) + math.abs(e[k]))) end
  for l = 0, n - 1 do
    for count = 1, MOST + 1 do
      local m = l
      while m < n - 1 and math.abs(e[m]) > small do m = m + 1 end
      if m == l then break end
      if count > MOST then core.fail("eigenvalues: no convergence in %d sweeps; are all numbers finite?", MOST) end
      sweep(d, e, l, m)
    end
  end
end

local function working_copy(t)
  if #t.shape ~= 2 or t.shape[1] ~= t.shape[2] then
    core.fail("eigenvalues: %s is not a square matrix", core.shape_text(t.shape))
  end
  return tensor.to_host(t:to "float64")
end

--- Eigenvalues of a symmetric matrix [n,n], in no order: float64 [n].
---@param t perigee.Tensor
---@return perigee.Tensor
function M.eigenvalues(t)
  local n = t.shape[1]
  local a = working_copy(t)
  local d, e = tridiagonal(a, n)
  diagonalise(d, e, n)
  return tensor.tensor(d, { n }, "float64")
end

--- A root B of a symmetric matrix C [n,n] without negative eigenvalues: C = B·Bᵀ, B float64 [n,r] with r the rank, up
--- to rounding of C's largest diagonal element.
---@param t perigee.Tensor
---@return perigee.Tensor
function M.root(t)
  local n = t.shape[1]
  local a = working_copy(t)
  local rest, largest = ffi.new("double[?]", n), 0 -- the diagonal of what is left of C
  for k = 0, n - 1 do
    rest[k] = a[k * n + k]
    largest = math.max(largest, rest[k])
  end
  local root, rank = ffi.new("double[?]", n * n), 0 -- rows: B's columns
  while rank < n do
    local pivot = 0
    for k = 1, n - 1 do
      if rest[k] > rest[pivot] then pivot = k end
    end
    if rest[pivot] <= n * EPSILON * largest or rest[pivot] ~= rest[pivot] then break end
    local row = root + rank * n
    for k = 0, n - 1 do row[k] = a[pivot * n + k] end
    for j = 0, rank - 1 do
      local earlier = root + j * n
      local factor = earlier[pivot]
      if factor ~= 0 then
        for k = 0, n - 1 do row[k] = row[k] - factor * earlier[k] end
      end
    end
    local scale = 1 / math.sqrt(rest[pivot])
    for k = 0, n - 1 do
      row[k] = row[k] * scale
      rest[k] = rest[k] - row[k] * row[k]
    end
    rest[pivot], rank = 0, rank + 1
  end
  if rank == 0 then return ops.fill({ n, 1 }, { value = 0, dtype = "float64" }) end
  return tensor.tidy(function()
    return tensor.tensor(root, { n, n }, "float64"):narrow(1, 1, rank):transpose(1, 2):contiguous()
  end)
end

return M
