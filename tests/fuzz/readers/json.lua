local check = require "tests.fuzz.check"
local json = require "perigee.io.json"

--- What is read, written and read again is the same.
local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

return { read = function(text)
  local value = json.decode(text, "a text")
  local fine, again = pcall(json.encode, value)
  if not fine then
    check.demand(again:find "JSON has no way to write" or again:find "levels", "cannot be written: %s", tostring(again))
  else
    check.demand(equal(json.decode(again), value), "another value after %s", again)
  end
end }
