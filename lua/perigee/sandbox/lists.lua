--- The table library of consoles: sorting in Lua, which a limit reaches, and no loop in C longer than the table. Each
--- call looks at the clock.
jit.off(true, true)

local core = require "perigee.core.ffi"
local patterns = require "perigee.sandbox.patterns"

local M = {}

for _, name in ipairs { "concat", "maxn" } do
  M[name] = function(...)
    patterns.tick()
    return table[name](...)
  end
end

local function list_of(name, t)
  patterns.tick()
  if type(t) ~= "table" then core.fail("table.%s: expected a table, got a %s", name, type(t)) end
  return t
end

local function place(name, t, at, last)
  if type(at) ~= "number" or at % 1 ~= 0 or at < 1 or at > last then
    core.fail("table.%s: position %s of a list of %d", name, tostring(at), #t)
  end
  return at
end

function M.insert(t, ...)
  local n = select("#", ...)
  local at = n > 1 and place("insert", list_of("insert", t), (...), #t + 1)
  if n == 1 then table.insert(list_of("insert", t), (...)) elseif at then table.insert(t, at, (select(2, ...)))
  else core.fail "table.insert: expected a table and a value" end
end

function M.remove(t, at)
  if at == nil or #list_of("remove", t) == 0 then return table.remove(list_of("remove", t)) end
  return table.remove(t, place("remove", t, at, #t))
end

local function less(a, b) return a < b end

--- Merges list[first ... middle] and list[middle + 1 ... last], through `spare`.
local function merge(list, spare, first, middle, last, before)
  local i, j = first, middle + 1
  for k = first, last do
    if k % 64 == 0 then patterns.tick() end
    if j > last or (i <= middle and not before(list[j], list[i])) then spare[k], i = list[i], i + 1
    else spare[k], j = list[j], j + 1 end
  end
  for k = first, last do list[k] = spare[k] end
end

--- In place. Unlike the built-in function it keeps equal elements in their order.
function M.sort(t, before)
  if before ~= nil and type(before) ~= "function" then
    core.fail("table.sort: expected a function, got a %s", type(before))
  end
  local n, list, spare = #list_of("sort", t), {}, {}
  for k = 1, n do list[k] = rawget(t, k) end
  local width = 1
  while width < n do
    for first = 1, n - width, 2 * width do
      merge(list, spare, first, first + width - 1, math.min(first + 2 * width - 1, n), before or less)
    end
    width = 2 * width
  end
  for k = 1, n do rawset(t, k, list[k]) end
end

return M
