--- Lua's patterns, written in Lua: find, match, gmatch and gsub of consoles. The built-in ones run in C, where no
--- limit on time reaches, and a short pattern can make them endless; gsub with a function that calls gsub overflows
--- C's stack.
--- `patterns.tick()` is called during the matching; it raises once the limit is over.
jit.off(true, true)

local core = require "perigee.core.ffi"

local byte, char, sub, plain_find = string.byte, string.char, string.sub, string.find
local ESCAPE, OPEN, CLOSE, NOT = byte "%", byte "[", byte "]", byte "^"
local UNFINISHED, POSITION, MOST_CAPTURES = -1, -2, 32

local M = {}

--- Raises where the time is over; sandbox/limit.lua sets it.
function M.tick() end

local steps = 0
local function tick()
  steps = steps + 1
  if steps % 256 == 0 then M.tick() end
end

-- ---- one character ----------------------------------------------------------------------------------------------

local classes = {} -- class -> code -> does it match?
for class = 0, 255 do classes[class] = {} end

local function in_class(c, class)
  local known = classes[class][c]
  if known == nil then
    known = plain_find(char(c), "[%" .. char(class) .. "]") ~= nil -- in a set %b, %f and %1 are letters
    classes[class][c] = known
  end
  return known
end

--- Where the item of a pattern ends that begins at p.
local function item_end(ms, p)
  local c = byte(ms.pattern, p)
  p = p + 1
  if c == ESCAPE then
    if p > #ms.pattern then core.fail "malformed pattern (ends with '%')" end
    return p + 1
  end
  if c ~= OPEN then return p end
  if byte(ms.pattern, p) == NOT then p = p + 1 end
  repeat
    if p > #ms.pattern then core.fail "malformed pattern (missing ']')" end
    p = p + (byte(ms.pattern, p) == ESCAPE and 2 or 1)
    tick()
  until byte(ms.pattern, p) == CLOSE
  return p + 1
end

--- Is a character in the set that begins at p and ends with the "]" at `last`?
local function in_set(ms, c, p, last)
  local pattern, found = ms.pattern, true
  p = p + 1
  if byte(pattern, p) == NOT then found, p = false, p + 1 end
  while p < last do
    tick()
    local item = byte(pattern, p)
    if item == ESCAPE then
      if in_class(c, byte(pattern, p + 1)) then return found end
      p = p + 2
    elseif byte(pattern, p + 1) == 45 and p + 2 < last then -- a range
      if item <= c and c <= byte(pattern, p + 2) then return found end
      p = p + 3
    else
      if item == c then return found end
      p = p + 1
    end
  end
  return not found
end

local function matches_one(ms, s, p, after)
  local c = byte(ms.text, s)
  if not c then return false end
  local item = byte(ms.pattern, p)
  if item == 46 then return true end -- "."
  if item == ESCAPE then return in_class(c, byte(ms.pattern, p + 1)) end
  if item == OPEN then return in_set(ms, c, p, after - 1) end
  return item == c
end

-- ---- the rest of a pattern --------------------------------------------------------------------------------------

local match

local function balanced(ms, s, p)
  local open, close = byte(ms.pattern, p, p + 1)
  if not close then core.fail "unbalanced pattern" end
  if byte(ms.text, s) ~= open then return nil end
  local depth = 1
  for k = s + 1, #ms.text do
    tick()
    local c = byte(ms.text, k)
    if c == close then
      depth = depth - 1
      if depth == 0 then return k + 1 end
    elseif c == open then depth = depth + 1 end
  end
end

local function longest(ms, s, p, after)
  local count = 0
  while matches_one(ms, s + count, p, after) do
    count = count + 1
    tick()
  end
  for k = count, 0, -1 do
    local stop = match(ms, s + k, after + 1)
    if stop then return stop end
  end
end

local function shortest(ms, s, p, after)
  while true do
    local stop = match(ms, s, after + 1)
    if stop then return stop end
    if not matches_one(ms, s, p, after) then return nil end
    s = s + 1
  end
end

local function begin_capture(ms, s, p, kind)
  if #ms.begins >= MOST_CAPTURES then core.fail "too many captures" end
  local level = #ms.begins + 1
  ms.begins[level], ms.lengths[level] = s, kind
  local stop = match(ms, s, p)
  if not stop then ms.begins[level], ms.lengths[level] = nil, nil end
  return stop
end

local function end_capture(ms, s, p)
  for level = #ms.begins, 1, -1 do
    if ms.lengths[level] == UNFINISHED then
      ms.lengths[level] = s - ms.begins[level]
      local stop = match(ms, s, p)
      if not stop then ms.lengths[level] = UNFINISHED end
      return stop
    end
  end
  core.fail "invalid pattern capture"
end

local function same_as_capture(ms, s, digit)
  local level = digit - 48
  local length = ms.lengths[level]
  if not length or length == UNFINISHED then core.fail "invalid capture index" end
  if length == POSITION then return nil end
  local begins = ms.begins[level]
  if sub(ms.text, begins, begins + length - 1) == sub(ms.text, s, s + length - 1) then return s + length end
end

local function at_frontier(ms, s, p)
  if byte(ms.pattern, p) ~= OPEN then core.fail "missing '[' after '%f' in pattern" end
  local after = item_end(ms, p)
  local before = s == 1 and 0 or byte(ms.text, s - 1)
  if not in_set(ms, before, p, after - 1) and in_set(ms, byte(ms.text, s) or 0, p, after - 1) then return after end
end

--- Matches the pattern from p on at s of the text: where the match ends (the first character after it), or nil.
function match(ms, s, p)
  while true do
    tick()
    if p > #ms.pattern then return s end
    local item, second = byte(ms.pattern, p, p + 1)
    if item == 40 then -- "("
      if second == 41 then return begin_capture(ms, s, p + 2, POSITION) end
      return begin_capture(ms, s, p + 1, UNFINISHED)
    elseif item == 41 then return end_capture(ms, s, p + 1) -- ")"
    elseif item == 36 and p == #ms.pattern then return s == #ms.text + 1 and s or nil -- "$"
    elseif item == ESCAPE and second == 98 then -- %b
      s = balanced(ms, s, p + 2)
      p = p + 4
    elseif item == ESCAPE and second == 102 then -- %f
      p = at_frontier(ms, s, p + 2)
      if not p then return nil end
    elseif item == ESCAPE and second and second >= 48 and second <= 57 then -- %1
      s = same_as_capture(ms, s, second)
      p = p + 2
    else
      local after = item_end(ms, p)
      local suffix = byte(ms.pattern, after)
      if suffix == 63 then -- "?"
        local stop = matches_one(ms, s, p, after) and match(ms, s + 1, after + 1)
        if stop then return stop end
        p = after + 1
      elseif suffix == 42 then return longest(ms, s, p, after) -- "*"
      elseif suffix == 43 then return matches_one(ms, s, p, after) and longest(ms, s + 1, p, after) or nil -- "+"
      elseif suffix == 45 then return shortest(ms, s, p, after) -- "-"
      elseif not matches_one(ms, s, p, after) then return nil
      else s, p = s + 1, after end
    end
    if not s then return nil end
  end
end

-- ---- the functions ----------------------------------------------------------------------------------------------

local function text_of(name, number, value)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then
    core.fail("bad argument #%d to '%s' (string expected, got %s)", number, name,
      value == nil and "no value" or type(value))
  end
  return value
end

local function capture(ms, level)
  local length = ms.lengths[level]
  if length == UNFINISHED then core.fail "unfinished capture" end
  if length == POSITION then return ms.begins[level] end
  return sub(ms.text, ms.begins[level], ms.begins[level] + length - 1)
end

--- The captures of a match; where there are none, the whole of it if `whole`.
local function captures(ms, s, stop, whole)
  if #ms.begins == 0 and whole then return sub(ms.text, s, stop - 1) end
  local list = {}
  for level = 1, #ms.begins do list[level] = capture(ms, level) end
  return unpack(list, 1, #ms.begins)
end

--- The first match at or after s: where it begins and ends. `first` is where the pattern begins, behind its "^".
local function search(ms, s, first, anchored)
  repeat
    ms.begins, ms.lengths = {}, {}
    local stop = match(ms, s, first)
    if stop then return s, stop end
    s = s + 1
  until anchored or s > #ms.text + 1
end

local AT_ONCE, HEAD, PIECE = 1e7, 64, 2 ^ 14 -- bytes compared at once; of what is sought, and of the text

--- As string.find(text, wanted, from, true), whose time is the product of both lengths: longer ones in pieces.
local function find_plain(text, wanted, from)
  if #text * #wanted <= AT_ONCE then return plain_find(text, wanted, from, true) end
  local head = sub(wanted, 1, HEAD)
  while from <= #text - #wanted + 1 do
    M.tick()
    local k = plain_find(sub(text, from, from + PIECE + #head - 2), head, 1, true)
    if not k then from = from + PIECE
    else
      from = from + k - 1
      if sub(text, from, from + #wanted - 1) == wanted then return from, from + #wanted - 1 end
      from = from + 1
    end
  end
end

local function prepared(name, text, pattern)
  local ms = { text = text_of(name, 1, text), pattern = text_of(name, 2, pattern) }
  local anchored = byte(ms.pattern, 1) == NOT
  return ms, anchored and 2 or 1, anchored
end

local function beginning(ms, from)
  from = from == nil and 1 or tonumber(from) or core.fail "bad argument #3 (number expected)"
  from = from >= 0 and math.floor(from) or math.ceil(from)
  if from < 0 then from = math.max(1, #ms.text + 1 + from) end
  return math.min(math.max(1, from), #ms.text + 1)
end

function M.find(text, pattern, from, plain)
  local ms, first, anchored = prepared("find", text, pattern)
  from = beginning(ms, from)
  if plain or not plain_find(ms.pattern, "[%^$*+?.(%[%%-]") then -- as Lua, which then looks no further at a ")"
    return find_plain(ms.text, ms.pattern, from)
  end
  local s, stop = search(ms, from, first, anchored)
  if not s then return nil end
  return s, stop - 1, captures(ms, s, stop)
end

function M.match(text, pattern, from)
  local ms, first, anchored = prepared("match", text, pattern)
  from = beginning(ms, from)
  local s, stop = search(ms, from, first, anchored)
  if not s then return nil end
  return captures(ms, s, stop, true)
end

function M.gmatch(text, pattern)
  local ms = prepared("gmatch", text, pattern)
  local from = 1
  return function()
    if from > #ms.text + 1 then return nil end
    local s, stop = search(ms, from, 1, false)
    if not s then
      from = #ms.text + 2
      return nil
    end
    from = stop == s and stop + 1 or stop
    return captures(ms, s, stop, true)
  end
end

--- A replacement's text with %0 to %9 filled in.
local function filled(ms, s, stop, replacement)
  local parts, k = {}, 1
  while k <= #replacement do
    tick()
    local c = sub(replacement, k, k)
    if c == "%" then
      k = k + 1
      c = sub(replacement, k, k)
      if c == "0" then c = sub(ms.text, s, stop - 1)
      elseif c:byte() and c:byte() >= 49 and c:byte() <= 57 then
        local level = c:byte() - 48
        if level == 1 and #ms.begins == 0 then c = sub(ms.text, s, stop - 1)
        elseif level > #ms.begins then core.fail "invalid capture index"
        else c = tostring(capture(ms, level)) end
      end
    end
    parts[#parts + 1] = c
    k = k + 1
  end
  return table.concat(parts)
end

local function replaced(ms, s, stop, by)
  local value
  if type(by) == "string" then return filled(ms, s, stop, by) end
  if type(by) == "table" then value = by[(captures(ms, s, stop, true))]
  else value = by(captures(ms, s, stop, true)) end
  if not value then return sub(ms.text, s, stop - 1) end
  if type(value) ~= "string" and type(value) ~= "number" then
    core.fail("invalid replacement value (a %s)", type(value))
  end
  return tostring(value)
end

function M.gsub(text, pattern, by, most)
  local ms, first, anchored = prepared("gsub", text, pattern)
  if type(by) == "number" then by = tostring(by) end
  if type(by) ~= "string" and type(by) ~= "table" and type(by) ~= "function" then
    core.fail("bad argument #3 to 'gsub' (string/function/table expected, got %s)", type(by))
  end
  local parts, s, count = {}, 1, 0
  most = tonumber(most) or math.huge
  while count < most do
    ms.begins, ms.lengths = {}, {}
    local stop = match(ms, s, first)
    if stop then
      count = count + 1
      parts[#parts + 1] = replaced(ms, s, stop, by)
    end
    if stop and stop > s then s = stop
    elseif s <= #ms.text then
      parts[#parts + 1] = sub(ms.text, s, s)
      s = s + 1
    else break end
    if anchored then break end
  end
  parts[#parts + 1] = sub(ms.text, s)
  return table.concat(parts), count
end

return M
