--- The string library of consoles: without string.dump, and with bounds on the calls that one line can make endless, as
--- no hook fires inside a C function.
local core = require "perigee.core.ffi"

local LONGEST = 2 ^ 24      -- bytes that string.rep may make
local MOST_ATTEMPTS = 3e9   -- that a pattern may make at worst: length ^ (unbounded repetitions in it)

local find, gsub = string.find, string.gsub

local M = {}
for name, value in pairs(string) do M[name] = value end
M.dump = nil

function M.rep(s, n, separator)
  if type(n) == "number" and (#tostring(s) + #(separator or "")) * n > LONGEST then
    core.fail("string.rep: %g bytes; a console allows %d", #tostring(s) * n, LONGEST)
  end
  return string.rep(s, n, separator)
end

local function check_pattern(name, s, pattern)
  if type(pattern) ~= "string" then return end
  local _, repetitions = gsub(pattern, "[*+-]", "")
  if (#tostring(s)) ^ math.min(repetitions, 5) > MOST_ATTEMPTS then
    core.fail("string.%s: a pattern with %d repetitions on %d bytes could take very long; take a shorter piece", name,
      repetitions, #s)
  end
end

for _, name in ipairs { "match", "gmatch", "gsub" } do
  M[name] = function(s, pattern, ...)
    check_pattern(name, s, pattern)
    return string[name](s, pattern, ...)
  end
end

function M.find(s, pattern, from, plain)
  if not plain then check_pattern("find", s, pattern) end
  return find(s, pattern, from, plain)
end

return M
