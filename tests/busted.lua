--- Runs a spec file under busted, as CTest does, and ends with status 0 where every test passed:
---
---   luajit tests/busted.lua tests/lua/stops_spec.lua [--filter PATTERN] [--output gtest] ...
---
--- from the project's folder, or from anywhere with an absolute path to this file.
--- PERIGEE_TEST_FILTER=PATTERN is --filter for those that don't choose the arguments.
local home = arg[0]:match "^(/.*)/tests/[^/]*$" or require("lfs").currentdir()
package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;"):format(home, home, home) .. package.path

local filter = os.getenv "PERIGEE_TEST_FILTER"
if filter then table.insert(arg, "--filter=" .. filter) end

-- a shell without job control has what it starts in the background ignore SIGINT, and programs inherit that
local ffi = require "ffi"
ffi.cdef 'void *tests_signal(int number, void *handler) __asm__("signal")'
local SIGINT, SIG_DFL = 2, nil
ffi.C.tests_signal(SIGINT, SIG_DFL)

local exit = os.exit
-- a test that ends the process would hide those after it
os.exit = function() error("os.exit was called in a test", 2) end -- luacheck: ignore 122

local run = require "busted.runner"
local fine, message = pcall(function() run { standalone = false, output = "plainTerminal" } end)
if message then io.stderr:write(tostring(message), "\n") end
exit(fine and 0 or 1, true)
