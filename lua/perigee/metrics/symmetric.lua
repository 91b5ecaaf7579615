--- Eigenvalues and eigenvectors of real symmetric matrices in float64: Householder's reduction to tridiagonal form,
--- then the QL method with implicit shifts (Golub and Van Loan, Matrix Computations, §8.3). Rows are worked on as they
--- lie in memory.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local tensor = require "perigee.core.tensor"

local M = {}

local EPSILON = 2 ^ -52
local MOST = 60 -- sweeps for one eigenvalue; a few are usual

--- Replaces a (n·n numbers) by its reduction: diagonal and off-diagonal (n each, the last of the second zero). Row k
--- keeps, from column k + 1 on, the vector v of the reflection 1 − scale[k]·v·vᵀ.
local function tridiagonal(a, n)
  local diagonal, off, scale = ffi.new("double[?]", n), ffi.new("double[?]", n), ffi.new("double[?]", n)
  local w = ffi.new("double[?]", n)
  for k = 0, n - 3 do
    local v = a + k * n
    local square = 0
    for j = k + 1, n - 1 do square = square + v[j] * v[j] end
    local norm = math.sqrt(square)
    if v[k + 1] > 0 then norm = -norm end
    off[k], diagonal[k] = norm, v[k]
    if norm ~= 0 then
      v[k + 1] = v[k + 1] - norm
      scale[k] = -1 / (norm * v[k + 1])
      -- the rest becomes A − v·wᵀ − w·vᵀ with w = s·A·v − ½·s²·(vᵀ·A·v)·v
      local across = 0
      for i = k + 1, n - 1 do
        local row, sum = a + i * n, 0
        for j = k + 1, n - 1 do sum = sum + row[j] * v[j] end
        w[i] = scale[k] * sum
        across = across + w[i] * v[i]
      end
      for i = k + 1, n - 1 do w[i] = w[i] - 0.5 * scale[k] * across * v[i] end
      for i = k + 1, n - 1 do
        local row, vi, wi = a + i * n, v[i], w[i]
        for j = k + 1, n - 1 do row[j] = row[j] - vi * w[j] - wi * v[j] end
      end
    end
  end
  for k = math.max(n - 2, 0), n - 1 do diagonal[k] = a[k * n + k] end
  if n > 1 then off[n - 2] = a[(n - 2) * n + n - 1] end
  return diagonal, off, scale
end

--- The reflections' product, transposed: its rows turn the tridiagonal form's eigenvectors into the matrix's.
local function reflections(a, n, scale)
  local q = ffi.new("double[?]", n * n)
  for k = 0, n - 1 do q[k * n + k] = 1 end
  for k = n - 3, 0, -1 do
    local v = a + k * n
    if scale[k] ~= 0 then
      for i = k + 1, n - 1 do
        local row, sum = q + i * n, 0
        for j = k + 1, n - 1 do sum = sum + row[j] * v[j] end
        sum = sum * scale[k]
        for j = k + 1, n - 1 do row[j] = row[j] - sum * v[j] end
      end
    end
  end
  return q
end

--- Turns rows i and i + 1 of z by an angle.
local function rotate(z, n, i, c, s)
  local low, high = z + i * n, z + (i + 1) * n
  for k = 0, n - 1 do
    local x, y = low[k], high[k]
    low[k], high[k] = c * x - s * y, s * x + c * y
  end
end

--- One implicit QL sweep over rows l ... m of d (diagonal) and e (off-diagonal).
local function sweep(d, e, l, m, n, z)
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
    if z then rotate(z, n, i, c, s) end
  end
  d[l], e[l], e[m] = d[l] - p, g, 0
end

--- Makes the off-diagonal zero, up to rounding of the largest entries; z's rows, where given, become eigenvectors.
local function diagonalise(d, e, n, z)
  local small = 0
  for k = 0, n - 1 do small = math.max(small, EPSILON * (math.abs(d[k]) + math.abs(e[k]))) end
  for l = 0, n - 1 do
    for count = 1, MOST + 1 do
      local m = l
      while m < n - 1 and math.abs(e[m]) > small do m = m + 1 end
      if m == l then break end
      if count > MOST then core.fail("eigenvalues: no convergence in %d sweeps; are all numbers finite?", MOST) end
      sweep(d, e, l, m, n, z)
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

--- Eigenvalues [n] and, as rows, eigenvectors of length one [n,n] of a symmetric matrix: A = Vᵀ·diag(values)·V.
---@param t perigee.Tensor
---@return perigee.Tensor values, perigee.Tensor vectors
function M.decompose(t)
  local n = t.shape[1]
  local a = working_copy(t)
  local d, e, scale = tridiagonal(a, n)
  local z = reflections(a, n, scale)
  diagonalise(d, e, n, z)
  return tensor.tensor(d, { n }, "float64"), tensor.tensor(z, { n, n }, "float64")
end

return M
