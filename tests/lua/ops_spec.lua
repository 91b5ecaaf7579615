--- Every op on every device and dtype: the cases of tests/ops, run by tests/lua/ops_harness.lua.
local lfs = require "lfs"
local home = require("perigee.core.ffi").home
local C = require("perigee.core.ffi").C
local list = require "perigee.core.list"
local harness = dofile(home .. "/tests/lua/ops_harness.lua")

local DTYPES = { "float32", "bfloat16", "float64" }

--- PERIGEE_TEST_DEVICES="cpu cuda" names the devices; with PERIGEE_CUDA_LIBRARY=.../libperigee_cuda_on_cpu.so the
--- second is the one of tests/cuda_on_cpu. Cases that a device has no kernel for yet are pending, and the kernels are
--- listed.
local devices = {}
for device in (os.getenv "PERIGEE_TEST_DEVICES" or "cpu"):gmatch "%S+" do devices[#devices + 1] = device end

local missing = {} -- kernels by name

local function attempt(device, body, ...)
  if device == "cpu" then return body(...) end
  local fine, message = pcall(body, ...)
  if fine then return end
  local kernel = harness.missing_kernel(message)
  if not kernel then error(message, 0) end
  missing[kernel] = true
  pending(("%s has no kernel %s"):format(device, kernel))
end

local function register(case)
  harness.validate(case)
  if case.error then
    it(case.name .. ": its error", function() harness.fails(case) end)
    return
  end
  if case.check then
    it(case.name, case.check)
    return
  end
  for _, dtype in ipairs(case.dtypes or DTYPES) do
    for _, device in ipairs(devices) do
      if device == "cpu" or dtype ~= "float64" then
        it(("%s, %s on %s"):format(case.name, dtype, device), function()
          attempt(device, harness.forward, case, dtype, device)
        end)
        if case.gradients and dtype ~= "float64" then
          it(("%s: gradients in %s on %s"):format(case.name, dtype, device), function()
            attempt(device, harness.gradients, case, dtype, device)
          end)
        end
      end
    end
  end
  if case.gradients then
    it(case.name .. ": finite differences", function() harness.differences(case) end)
  end
end

local files = {}
for file in lfs.dir(home .. "/tests/ops") do
  if file:match "%.lua$" then files[#files + 1] = file end
end
table.sort(files)

local only = os.getenv "PERIGEE_TEST_OPS" -- a pattern that picks files
for _, file in ipairs(files) do
  if not only or file:find(only) then
    describe(file:gsub("%.lua$", ""), function()
      local chunk = assert(loadfile(home .. "/tests/ops/" .. file))
      setfenv(chunk, getfenv(1)) -- busted's assert, describe, it
      for _, case in ipairs(chunk()) do register(case) end
    end)
  end
end

it("every kernel that the cases call is there", function()
  local names = {}
  for name in pairs(missing) do names[#names + 1] = name end
  table.sort(names)
  if #names > 0 then pending("missing: " .. table.concat(names, ", ")) end
end)

-- The other instruction sets that this machine can run, each in a process of its own: the choice is made once.
local function other_isas()
  local isas, others, known = list.read("base/isas.h", { "PG_ALL_ISAS" }), {}, false
  local cpuinfo = io.open "/proc/cpuinfo"
  local flags = cpuinfo and cpuinfo:read "*a" or ""
  if cpuinfo then cpuinfo:close() end
  for _, name in ipairs(isas.names) do
    local text, _, flag = unpack(isas.columns[name])
    if text == require("ffi").string(C.pg_cpu_isa()) then known = true
    elseif not flag or flags:find(" " .. flag .. " ", 1, true) then others[#others + 1] = name end
  end
  return known and others or {} -- a build for the sanitizers has one of its own
end
if not os.getenv "PERIGEE_ISA" and not only then
  for _, isa in ipairs(other_isas()) do
    it("every op on instruction set " .. isa, function()
      local busted = arg and arg[0] or "busted"
      local line = "cd '%s' && PERIGEE_ISA=%s LUA_PATH='%s' luajit '%s' tests/lua/ops_spec.lua 2>&1; echo status $?"
      local pipe = io.popen(line:format(home, isa, package.path, busted))
      local text = pipe:read "*a"
      pipe:close()
      assert(text:match "status 0%s*$", text)
    end)
  end
end
