--- Taps: values inside a model that losses and signals read by name. A model's forward publishes them; they are kept
--- only while somebody collects.
---
---   local velocity, collected = taps.collect(function() return student(x, t, y) end)
---   local hidden = taps.read(collected, "block 8")
---   local q, k = taps.read(collected, "queries and keys of block 5")
local core = require "perigee.core.ffi"
local tables = require "perigee.base.tables"

local M = {}

local scopes = {} -- open collectors, innermost last

--- Offers a value under a name, to every open collector.
function M.publish(name, value)
  for _, scope in ipairs(scopes) do
    if scope[name] ~= nil then
      core.fail("the tap '%s' is published twice; collect each forward pass by itself", name)
    end
    scope[name] = value
  end
end

--- Runs a function; returns its results and, after them, the table of what it published.
function M.collect(body, ...)
  local scope = {}
  scopes[#scopes + 1] = scope
  local results = { n = 0 }
  local function keep(ok, ...)
    results.n = select("#", ...)
    for k = 1, results.n do results[k] = (select(k, ...)) end
    return ok
  end
  local ok = keep(xpcall(body, core.handler, ...))
  scopes[#scopes] = nil
  if not ok then error(results[1], 0) end
  results[results.n + 1] = scope
  return unpack(results, 1, results.n + 1)
end

--- Queries and keys [B,N,H,d] as views of a packed qkv [B,N,3,H,d].
function M.queries_and_keys(qkv) return qkv:select(3, 1), qkv:select(3, 2) end

local function published(collected)
  local names = tables.sorted_keys(collected)
  for k, name in ipairs(names) do names[k] = "'" .. name .. "'" end
  return #names > 0 and table.concat(names, ", ") or "none"
end

--- A collected value by its name; "queries and keys of block 5" gives two. An error lists the names there are.
function M.read(collected, name)
  local block = name:match "^queries and keys of (.*)$"
  local value = collected[block and "qkv of " .. block or name]
  if value == nil then core.fail("no tap '%s'; the model publishes %s", name, published(collected)) end
  if block then return M.queries_and_keys(value) end
  return value
end

return M
