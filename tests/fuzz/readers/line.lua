--- A line in a console: whatever it says, the sandbox holds. The world outside is as it was, and the line has ended.
local check = require "tests.fuzz.check"
local chunk = require "perigee.sandbox.chunk"
local core = require "perigee.core.ffi"
local limit = require "perigee.sandbox.limit"
local sandbox = require "perigee.console.sandbox"
local tensor = require "perigee.core.tensor"

local LIMIT, LATE = 0.05, 4 -- seconds: a hook interrupts the fuzzer's own, so nothing is measured closely

local function library()
  local list = {}
  for _, name in ipairs { "string", "table", "math", "os", "io", "debug", "coroutine", "package", "bit", "jit" } do
    for key, value in pairs(_G[name]) do list[name .. "." .. tostring(key)] = value end
  end
  for key, value in pairs(_G) do list[tostring(key)] = value end
  return list
end

local whole, class = library(), debug.getmetatable ""
local index = class.__index

local function expect_whole()
  local now = library()
  for name, value in pairs(whole) do check.demand(rawequal(now[name], value), "%s was changed", name) end
  for name in pairs(now) do check.demand(whole[name] ~= nil, "%s was added", name) end
  check.demand(debug.getmetatable "" == class and class.__index == index, "texts have another metatable")
  check.demand(not tensor.is_limited(), "a limit is still in force")
end

return { read = function(text)
  local printed = 0
  local environment = sandbox.environment({}, function(out) printed = printed + #out end)
  local compiled = chunk.compile(text, environment)
  if not compiled then return end
  local client, began = limit.client(), core.C.pg_clock_seconds()
  limit.run(LIMIT, function() return tensor.outlive(compiled) end, chunk.handler(limit.is_users), client)
  limit.release(client)
  check.demand(core.C.pg_clock_seconds() - began < LATE, "it took %.1f s", core.C.pg_clock_seconds() - began)
  expect_whole()
end }
