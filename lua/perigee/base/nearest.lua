--- The name that a user probably meant.
local M = {}

local LONGEST = 100 -- bytes of a name for which a near one is looked for, and of one that is near

--- Edits that turn `a` into `b`: insertions, deletions, replacements, and swaps of neighbours
--- (Damerau-Levenshtein, in its "optimal string alignment" form).
---@param a string
---@param b string
---@return integer
function M.distance(a, b)
  local before, last, as, bs = {}, {}, { a:byte(1, -1) }, { b:byte(1, -1) }
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = as[i] == bs[j]
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and as[i] == bs[j - 1] and as[i - 1] == bs[j] then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- The nearest of `names`, or nil where none is near: within a third of the name's length (at least one edit), or
--- begun by what was typed. Case doesn't count; of equally near ones, the first in alphabetical order. Names that are
--- not texts (numbers among a table's keys) count as texts.
---@param name string
---@param names any[]
---@return string?
function M.find(name, names)
  if #name > LONGEST then return nil end
  local sorted = {}
  for _, candidate in ipairs(names) do
    local text = tostring(candidate)
    if #text <= LONGEST then sorted[#sorted + 1] = text end
  end
  table.sort(sorted)
  local wanted, best = name:lower(), nil
  local best_distance = math.max(1, math.floor(#name / 3)) + 1
  for _, candidate in ipairs(sorted) do
    local distance = M.distance(wanted, candidate:lower())
    if distance < best_distance then best, best_distance = candidate, distance end
  end
  if best or #name < 2 then return best end
  for _, candidate in ipairs(sorted) do
    if candidate:lower():sub(1, #wanted) == wanted then return candidate end
  end
end

--- `; did you mean "batch"?`, or "" where nothing is near: the end of a message.
---@param name string
---@param names any[]
---@param prefix? string  what stands before the name, as in "--"
---@return string
function M.hint(name, names, prefix)
  local found = M.find(name, names)
  return found and ('; did you mean "%s%s"?'):format(prefix or "", found) or ""
end

return M
