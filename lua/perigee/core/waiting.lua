--- How long a thread spins before it sleeps, while it waits for the others at the end of a loop, as a program decides
--- when it starts; runtime/waiting.c follows what others do from then on. In a quota below the threads it is short for
--- good: libgomp reads that (GOMP_SPINCOUNT) once, when the runtime's library is loaded.
local ffi = require "ffi"
local limits = require "perigee.core.limits"
local whole_file = require "perigee.base.whole_file"

ffi.cdef [[
int setenv(const char *name, const char *value, int overwrite);
int usleep(unsigned int microseconds);
]]

local SHORT = "300"                   -- turns of the waiting loop; libgomp's own number is 300000
local LOOKS, APART = 5, 2000          -- at what runs, and microseconds between them

local M = { stat = "/proc/stat" } -- where it is read; tests give another

--- Processors of the machine, and processes that run or would run now, this one among them; nil where nothing says so.
local function running()
  local text = whole_file.read(M.stat) or ""
  local _, processors = ("\n" .. text):gsub("\ncpu%d+ ", "")
  return processors, tonumber(text:match "procs_running (%d+)")
end

--- Do others leave fewer processors than the threads want? At each of a few looks.
---@param threads integer
---@return boolean
function M.is_crowded(threads)
  for look = 1, LOOKS do
    local processors, wanted = running()
    if not wanted or processors - (wanted - 1) >= threads then return false end
    if look < LOOKS then ffi.C.usleep(APART) end
  end
  return true
end

--- Threads that will be used: OMP_NUM_THREADS, else the processors that this process may run on, at most the quota.
local function threads_wanted(quota)
  local asked = tonumber((os.getenv "OMP_NUM_THREADS" or ""):match "^%s*(%d+)")
  if asked then return asked end
  local count = 0
  local allowed = (whole_file.read "/proc/self/status" or ""):match "\nCpus_allowed_list:%s*([%d,-]+)" or "0"
  for range in allowed:gmatch "[^,]+" do
    local first, last = range:match "^(%d+)%-(%d+)$"
    count = count + (first and last - first + 1 or 1)
  end
  return quota and math.max(1, math.min(count, math.floor(quota + 0.5))) or count
end

--- Decides for a quota, before the library is loaded, unless the user has.
function M.prepare()
  if os.getenv "GOMP_SPINCOUNT" or os.getenv "OMP_WAIT_POLICY" then return end
  local quota = limits.quota()
  local threads = threads_wanted(quota)
  if threads < 2 then return end
  if quota and quota < threads then ffi.C.setenv("GOMP_SPINCOUNT", SHORT, 0) end
end

--- With the library loaded: others that are there already count from the first loop on.
---@param C ffi.namespace*
function M.begin(C)
  local threads = C.pg_threads()
  if threads > 1 and M.is_crowded(threads) then C.pg_waiting_share(1) end
end

return M
