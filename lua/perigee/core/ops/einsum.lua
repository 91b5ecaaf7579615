--- Sums of products by Einstein's notation: ops.einsum("bhnd,bhmd->bhnm", q, k).
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

-- ---- the notation -----------------------------------------------------------------------------------------------

--- The letters of a term, one a dimension. "..." becomes the `dots` names "dots", ..., "2", "1": they are counted from
--- the last, as broadcasting does.
local function letters_of(equation, term, dots)
  local list = {}
  local before, after = term:match "^(%a*)%.%.%.(%a*)$"
  if not before then before, after, dots = term:match "^%a*$", "", 0 end
  if not before then fail("einsum: '%s' in \"%s\"; a term is letters, and may have one ...", term, equation) end
  for letter in before:gmatch "." do list[#list + 1] = letter end
  for k = dots, 1, -1 do list[#list + 1] = tostring(k) end
  for letter in after:gmatch "." do list[#list + 1] = letter end
  return list
end

--- Letters without "->": those that come once, in alphabetical order, after what "..." stands for.
local function implied(terms, dots)
  local count, result, once = {}, {}, {}
  for _, term in ipairs(terms) do
    for _, letter in ipairs(term) do count[letter] = (count[letter] or 0) + 1 end
  end
  for k = dots, 1, -1 do result[#result + 1] = tostring(k) end
  for letter, times in pairs(count) do
    if times == 1 and letter:find "%a" then once[#once + 1] = letter end
  end
  table.sort(once)
  for _, letter in ipairs(once) do result[#result + 1] = letter end
  return result
end

--- The operands as { x = tensor, letters = { ... } }, and the result's letters.
local function parse(equation, operands)
  local left, right = equation:gsub("%s", ""), nil
  if left:find("->", 1, true) then left, right = left:match "^(.-)%->(.*)$" end
  local terms, list, most = {}, {}, 0
  for term in (left .. ","):gmatch "(.-)," do
    local k = #terms + 1
    local x = operands[k] or fail("einsum: \"%s\" has more terms than operands, which are %d", equation, #operands)
    if not op.is_operand(x) then fail("einsum: operand %d is a %s, not a tensor", k, type(x)) end
    local dots = math.max(#x.shape - #term:gsub("%.", ""), 0)
    terms[k] = letters_of(equation, term, dots)
    if #terms[k] ~= #x.shape then fail("einsum: '%s' for operand %d, which is %s", term, k, text(x.shape)) end
    if term:find(".", 1, true) then most = math.max(most, dots) end
    list[k] = { x = x, letters = terms[k] }
  end
  if #list ~= #operands then fail("einsum: \"%s\" has %d terms, %d operands are given", equation, #list, #operands) end
  return list, right and letters_of(equation, right, most) or implied(terms, most)
end

local function places(letters)
  local place = {}
  for d, letter in ipairs(letters) do place[letter] = d end
  return place
end

-- ---- one operand ------------------------------------------------------------------------------------------------

--- A letter that comes twice stands for a diagonal.
local function without_repeats(a)
  local first = {}
  for d, letter in ipairs(a.letters) do
    local before = first[letter]
    if before then
      local rest = {}
      for k, other in ipairs(a.letters) do
        if k ~= d and k ~= before then rest[#rest + 1] = other end
      end
      rest[#rest + 1] = letter
      return without_repeats { x = ops.diagonal(a.x, before, d), letters = rest }
    end
    first[letter] = d
  end
  return a
end

--- Sums over the letters that are not in `kept`.
local function summed(a, kept)
  local dims, letters = {}, {}
  for d, letter in ipairs(a.letters) do
    if kept[letter] then letters[#letters + 1] = letter else dims[#dims + 1] = d end
  end
  return #dims > 0 and { x = ops.sum(a.x, dims), letters = letters } or a
end

--- x with its dimensions in the order of `letters`; a letter that it lacks becomes a dimension of size 1.
local function arranged(a, letters)
  local place, order, shape = places(a.letters), {}, {}
  for d, letter in ipairs(letters) do
    if place[letter] then order[#order + 1] = place[letter] end
    shape[d] = place[letter] and a.x.shape[place[letter]] or 1
  end
  local x = a.x
  for d, from in ipairs(order) do
    if d ~= from then
      x = ops.permute(x, order)
      break
    end
  end
  return ops.reshape(x, shape)
end

-- ---- two operands -----------------------------------------------------------------------------------------------

local function joined(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, letter in ipairs(list) do all[#all + 1] = letter end
  end
  return all
end

--- Both operands with the sizes of shared letters made equal: 1 stretches.
local function stretched(a, b, place)
  local wide_a, wide_b = { unpack(a.x.shape) }, { unpack(b.x.shape) }
  for d, letter in ipairs(b.letters) do
    local at = place[letter]
    if at and wide_a[at] ~= wide_b[d] then
      if wide_a[at] ~= 1 and wide_b[d] ~= 1 then
        fail("einsum: '%s' is %d in %s and %d in %s", letter, wide_a[at], text(a.x.shape), wide_b[d], text(b.x.shape))
      end
      local size = math.max(wide_a[at], wide_b[d])
      wide_a[at], wide_b[d] = size, size
    end
  end
  return { x = ops.expand(a.x, wide_a), letters = a.letters }, { x = ops.expand(b.x, wide_b), letters = b.letters }
end

--- The product of two operands, summed over what they share and nobody keeps: a batch of matrix products, or where
--- nothing is to be summed a product by element.
local function product(a, b, kept)
  local in_a, in_b = places(a.letters), places(b.letters)
  a = summed(a, setmetatable({}, { __index = function(_, letter) return kept[letter] or in_b[letter] end }))
  b = summed(b, setmetatable({}, { __index = function(_, letter) return kept[letter] or in_a[letter] end }))
  in_a, in_b = places(a.letters), places(b.letters)
  a, b = stretched(a, b, in_a)
  local batch, inner, rows, columns = {}, {}, {}, {}
  for _, letter in ipairs(a.letters) do
    local list = not in_b[letter] and rows or kept[letter] and batch or inner
    list[#list + 1] = letter
  end
  for _, letter in ipairs(b.letters) do
    if not in_a[letter] then columns[#columns + 1] = letter end
  end
  local letters = joined(batch, rows, columns)
  if #inner == 0 then return { x = ops.mul(arranged(a, letters), arranged(b, letters)), letters = letters } end
  local sizes = {}
  for _, operand in ipairs { a, b } do
    for d, letter in ipairs(operand.letters) do sizes[letter] = operand.x.shape[d] end
  end
  local function joint(list)
    local n = 1
    for _, letter in ipairs(list) do n = n * sizes[letter] end
    return n
  end
  local shape = {}
  for d, letter in ipairs(letters) do shape[d] = sizes[letter] end
  local left, right = { joint(rows), joint(inner) }, { joint(inner), joint(columns) }
  if #batch > 0 then
    table.insert(left, 1, joint(batch))
    table.insert(right, 1, joint(batch))
  end
  local y = ops.matmul(ops.reshape(arranged(a, joined(batch, rows, inner)), left),
    ops.reshape(arranged(b, joined(batch, inner, columns)), right))
  return { x = ops.reshape(y, shape), letters = letters }
end

--- The sum of products that `equation` says: a term of letters for each operand, one a dimension, and after "->" the
--- letters of the result; the others are summed over. "..." stands for any further dimensions. Operands are multiplied
--- from left to right.
---@param equation string
---@param ... perigee.Tensor
local function einsum(equation, ...)
  if type(equation) ~= "string" then fail "einsum: expected ops.einsum(\"ij,jk->ik\", a, b)" end
  local list, result = parse(equation, { ... })
  for k, operand in ipairs(list) do list[k] = without_repeats(operand) end
  local seen = {}
  for _, operand in ipairs(list) do
    for letter in pairs(places(operand.letters)) do seen[letter] = true end
  end
  for d, letter in ipairs(result) do
    if not seen[letter] or places(result)[letter] ~= d then
      fail("einsum: '%s' of the result in \"%s\" %s", letter, equation,
        seen[letter] and "comes twice" or "is in no operand")
    end
  end
  local a = list[1]
  for k = 2, #list do
    local kept = places(result)
    for later = k + 1, #list do
      for letter in pairs(places(list[later].letters)) do kept[letter] = true end
    end
    a = product(a, list[k], kept)
  end
  return arranged(summed(a, places(result)), result)
end

return { einsum = einsum }
