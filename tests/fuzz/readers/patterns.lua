--- The sandbox's patterns, held against Lua's own. The first byte says what is called; pattern and text are parted by a
--- zero, and short, since Lua's own may take exponential time.
local check = require "tests.fuzz.check"
local patterns = require "perigee.sandbox.patterns"

local NAMES = { "find", "match", "gsub" }
local find, match, gsub = string.find, string.match, string.gsub
local own = { find = find, match = match, gsub = gsub }

local function show(results)
  for k = 1, results.n do results[k] = tostring(results[k]) end
  return table.concat(results, ", ", 1, results.n)
end

local function call(f, ...)
  local function pack(...) return { n = select("#", ...), ... } end
  return pack(pcall(f, ...))
end

return { read = function(text)
  if #text < 2 or #text > 40 then return end
  local first, pattern, subject = text:byte(), match(text, "^.([^%z]*)%z?(.*)$")
  if not pattern or #pattern > 14 then return end
  local name = NAMES[first % 3 + 1]
  local more = name == "gsub" and { ({ "<%0>", "%1", "x", "%%" })[first % 4 + 1] } or { first % 5 - 2 }
  local expected, given = call(own[name], subject, pattern, unpack(more)), call(patterns[name], subject, pattern,
    unpack(more))
  if expected[1] and given[1] then
    local a, b = show(expected), show(given)
    check.demand(a == b, "%s(%q, %q): Lua gives %s, the sandbox %s", name, subject, pattern, a, b)
  else
    check.demand(expected[1] == given[1], "%s(%q, %q): Lua gives %s, the sandbox %s", name, subject, pattern,
      show(expected), show(given))
  end
end }
