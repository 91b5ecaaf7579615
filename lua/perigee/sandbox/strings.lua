--- The string library of consoles: without string.dump, patterns in Lua (sandbox/patterns.lua), and a bound on what a
--- call makes, as no hook fires inside a C function. Each call looks at the clock: many that take long may be made
--- before a hook fires.
local core = require "perigee.core.ffi"
local patterns = require "perigee.sandbox.patterns"

local LONGEST = 2 ^ 24 -- bytes that string.rep may make

local M = {}
for name, value in pairs(string) do
  M[name] = function(...)
    patterns.tick()
    return value(...)
  end
end
M.dump = nil
for _, name in ipairs { "find", "match", "gmatch", "gsub" } do M[name] = patterns[name] end
M.gfind = nil

function M.rep(s, n, separator)
  patterns.tick()
  if type(n) == "number" and (#tostring(s) + #(separator or "")) * n > LONGEST then
    core.fail("string.rep: %g bytes; a console allows %d", #tostring(s) * n, LONGEST)
  end
  return string.rep(s, n, separator)
end

--- As string.format; objects become text here: their __tostring would be called from C, and from there C's stack can
--- overflow.
function M.format(form, ...)
  patterns.tick()
  local list, n = { ... }, select("#", ...)
  for k = 1, n do
    if type(list[k]) == "table" or type(list[k]) == "userdata" then list[k] = tostring(list[k]) end
  end
  return string.format(form, unpack(list, 1, n))
end

return M
