--- The memory and processors that this process may use: by the machine, by control groups (containers, systemd,
--- schedulers; versions 1 and 2, https://docs.kernel.org/admin-guide/cgroup-v2.html) and by ulimit.
local ffi = require "ffi"
local whole_file = require "perigee.base.whole_file"

ffi.cdef [[
struct pg_rlimit { unsigned long now, most; };
int getrlimit(int resource, struct pg_rlimit *limit);
]]

local RLIMIT_DATA, RLIMIT_AS = 2, 9
local UNLIMITED = 2 ^ 60 -- bytes: version 1 says "no limit" with a number near 2^63
local KILOBYTE = 1024

local M = { groups = "/sys/fs/cgroup", proc = "/proc" } -- where they are read; tests give others

local read = whole_file.read

local function number(path) return tonumber((read(path) or ""):match "^%-?%d+") end

-- ---- control groups ---------------------------------------------------------------------------------------------

--- The folders of a controller's groups that this process is in, from its own up to the outermost that can be seen. A
--- container may see its own group as the root, whatever the path says.
local function folders(controller)
  local list = {}
  for line in (read(M.proc .. "/self/cgroup") or ""):gmatch "[^\n]+" do
    local names, path = line:match "^%d+:([^:]*):(.*)$"
    local root
    if names == "" then root = M.groups -- version 2
    elseif names and ("," .. names .. ","):find("," .. controller .. ",", 1, true) then
      root = M.groups .. "/" .. controller
    end
    while root and path do
      list[#list + 1] = root .. (path == "/" and "" or path)
      path = path ~= "/" and path ~= "" and (path:match "^(/.*)/[^/]*$" or "/") or nil
    end
  end
  return list
end

--- Limit and free bytes of the tightest group. What the kernel keeps of files it gives back when it is needed.
local function group_memory()
  local limit, free
  for _, folder in ipairs(folders "memory") do
    local most = number(folder .. "/memory.max") or number(folder .. "/memory.limit_in_bytes")
    local used = number(folder .. "/memory.current") or number(folder .. "/memory.usage_in_bytes")
    if most and most < UNLIMITED then
      local stat = "\n" .. (read(folder .. "/memory.stat") or "")
      local files = tonumber(stat:match "\ntotal_inactive_file (%d+)" or stat:match "\ninactive_file (%d+)") or 0
      limit = math.min(limit or math.huge, most)
      free = math.min(free or math.huge, math.max(0, most - math.max(0, (used or 0) - files)))
    end
  end
  return limit, free
end

--- Processors that the tightest group may keep busy, such as 1.5; nil: all.
---@return number?
function M.quota()
  local least
  for _, folder in ipairs(folders "cpu") do
    local microseconds, period = (read(folder .. "/cpu.max") or ""):match "^(%d+) (%d+)"
    microseconds = tonumber(microseconds) or number(folder .. "/cpu.cfs_quota_us")
    period = tonumber(period) or number(folder .. "/cpu.cfs_period_us")
    if microseconds and microseconds > 0 and period and period > 0 then
      least = math.min(least or math.huge, microseconds / period)
    end
  end
  return least
end

-- ---- ulimit -----------------------------------------------------------------------------------------------------

--- Limit and free bytes by `ulimit -v` and `ulimit -d`, or nil.
local function own_memory()
  local status, limit, free = read(M.proc .. "/self/status") or "", nil, nil
  for resource, used in pairs { [RLIMIT_AS] = "VmSize", [RLIMIT_DATA] = "VmData" } do
    local now = ffi.new "struct pg_rlimit"
    if ffi.C.getrlimit(resource, now) == 0 and tonumber(now.now) < UNLIMITED then
      local most, taken = tonumber(now.now), tonumber(status:match(used .. ":%s*(%d+)") or 0) * KILOBYTE
      limit = math.min(limit or math.huge, most)
      free = math.min(free or math.huge, math.max(0, most - taken))
    end
  end
  return limit, free
end

-- ---- what holds -------------------------------------------------------------------------------------------------

---@class perigee.MemoryLimit
---@field total number    bytes that this process may use at most
---@field free number     bytes of them that are not in use
---@field machine number  bytes of the machine
---@field whose "this machine"|"this container"|"ulimit"  what bounds `total`

--- Nil where the system doesn't say.
---@return perigee.MemoryLimit?
function M.memory()
  local text = read(M.proc .. "/meminfo") or ""
  local total, available = text:match "MemTotal:%s*(%d+)", text:match "MemAvailable:%s*(%d+)"
  if not total then return nil end
  local machine = tonumber(total) * KILOBYTE
  local result = { total = machine, free = tonumber(available or total) * KILOBYTE, machine = machine,
    whose = "this machine" }
  for whose, measure in pairs { ["this container"] = group_memory, ulimit = own_memory } do
    local limit, free = measure()
    if limit then
      if limit < result.total then result.total, result.whose = limit, whose end
      result.free = math.min(result.free, free)
    end
  end
  return result
end

--- Threads for this process: those that OMP_NUM_THREADS says or the processors that it may run on (sched_setaffinity),
--- at most the quota, rounded.
---@return integer
function M.threads()
  local threads, asked = require("perigee.core.ffi").C.pg_threads(), os.getenv "OMP_NUM_THREADS" or ""
  local allowed = asked == "" and M.quota()
  return allowed and math.max(1, math.min(threads, math.floor(allowed + 0.5))) or threads
end

--- Makes that the default.
function M.apply()
  local core = require "perigee.core.ffi" -- here: core/waiting.lua asks for the quota before the library is loaded
  core.check(core.C.pg_threads_set(M.threads()))
end

return M
