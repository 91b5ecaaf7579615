--- Einstein sums against a loop over every combination of letters.
local cases = {}

--- The sum over all letters of the product of the operands' elements.
local function naive(terms, result, operands)
  local size, letters = {}, {}
  for k, term in ipairs(terms) do
    for d = 1, #term do
      local letter = term:sub(d, d)
      if not size[letter] then letters[#letters + 1] = letter end
      size[letter] = math.max(size[letter] or 1, operands[k].shape[d])
    end
  end
  local tables, at = {}, {}
  for k, x in ipairs(operands) do tables[k] = x:totable() end
  local function element(t, term, shape)
    for d = 1, #term do t = t[shape[d] == 1 and 1 or at[term:sub(d, d)]] end
    return t
  end
  local total = #result == 0 and 0 or {}
  local function add(value)
    if #result == 0 then
      total = total + value
      return
    end
    local t = total
    for d = 1, #result - 1 do
      local k = at[result:sub(d, d)]
      t[k] = t[k] or {}
      t = t[k]
    end
    local k = at[result:sub(-1)]
    t[k] = (t[k] or 0) + value
  end
  local function walk(depth)
    if depth > #letters then
      local value = 1
      for k, term in ipairs(terms) do value = value * element(tables[k], term, operands[k].shape) end
      return add(value)
    end
    for k = 1, size[letters[depth]] do
      at[letters[depth]] = k
      walk(depth + 1)
    end
  end
  walk(1)
  return total
end

for _, entry in ipairs {
  { "ij,jk->ik", { 3, 4 }, { 4, 5 } }, { "ij,jk->ki", { 3, 33 }, { 33, 2 } }, { "ji,jk->ik", { 4, 3 }, { 4, 5 } },
  { "bhnd,bhmd->bhnm", { 2, 3, 4, 5 }, { 2, 3, 2, 5 } }, { "nbd,bmd->bnm", { 4, 2, 3 }, { 2, 5, 3 } },
  { "i,j->ij", { 3 }, { 4 } }, { "i,i->", { 31 }, { 31 } }, { "i,i->i", { 5 }, { 5 } }, { "ij->", { 3, 4 } },
  { "ij->ji", { 3, 4 } }, { "ii->i", { 4, 4 } }, { "ijij->", { 3, 2, 3, 2 } }, { "ij,kl->", { 2, 3 }, { 4, 2 } },
  { "ij,ij->", { 3, 4 }, { 3, 4 } }, { "ijk,jl->l", { 2, 3, 4 }, { 3, 5 } },
  { "ij,jk,kl->il", { 2, 3 }, { 3, 4 }, { 4, 2 } }, { "ij,ik,il->ijkl", { 2, 3 }, { 2, 2 }, { 2, 4 } },
  { "ij,jk->ik", { 3, 1 }, { 4, 5 } }, { "abc,bad->cd", { 2, 3, 4 }, { 3, 2, 5 } },
} do
  local equation, inputs, gradients = entry[1], {}, {}
  for k = 2, #entry do inputs[k - 1], gradients[k - 1] = { shape = entry[k] }, k - 1 end
  local terms, result = {}, equation:match "->(.*)$"
  for term in (equation:match "^(.-)%->" .. ","):gmatch "(.-)," do terms[#terms + 1] = term end
  local shapes = {}
  for k = 2, #entry do shapes[k - 1] = table.concat(entry[k], "x") end
  cases[#cases + 1] = {
    name = ("einsum %s of %s"):format(equation, table.concat(shapes, ", ")), inputs = inputs, gradients = gradients,
    run = function(ops, ...) return ops.einsum(equation, ...) end,
    reference = function(_, ...) return naive(terms, result, { ... }) end,
    strided = false, -- a product may read an operand of another layout the other way round, with other bits
    tolerance = { float32 = 1e-5, bfloat16 = 2e-2, float64 = 1e-12 },
  }
end
cases[#cases + 1] = {
  name = "einsum with ... and without a result",
  inputs = { { shape = { 2, 3, 4 } }, { shape = { 1, 4, 5 } }, { shape = { 4, 5 } } }, gradients = { 1, 2, 3 },
  tolerance = { float32 = 1e-5, bfloat16 = 2e-2, float64 = 1e-12 },
  run = function(ops, x, y, z)
    return ops.einsum("...ij,...jk->...ik", x, y), ops.einsum("b...a,ac", x, z), ops.einsum("ba", z)
  end,
  reference = function(ops, x, y, z)
    return ops.matmul(x, y), ops.transpose(ops.matmul(x, z), 1, 2), ops.transpose(z, 1, 2)
  end,
}
return cases
