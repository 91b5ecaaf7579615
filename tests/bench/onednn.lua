--- oneDNN's own threaded float32 product, where that library is installed: the peer of our matmul.
local ffi = require "ffi"
local clock = require("perigee.core.ffi").C.pg_clock_seconds

ffi.cdef [[
int dnnl_sgemm(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
  const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
typedef struct { int major, minor, patch; const char *hash; } bench_dnnl_version;
const bench_dnnl_version *dnnl_version(void);
]]

local function library()
  for _, name in ipairs { "libdnnl.so.3", "libdnnl.so.2", "libdnnl.so" } do
    local found, lib = pcall(ffi.load, name)
    if found then return lib end
  end
end
local dnnl = library()

local M = { found = dnnl ~= nil }

--- "2.6.3", or nil.
function M.version()
  if not dnnl then return nil end
  local v = dnnl.dnnl_version()
  return ("%d.%d.%d"):format(v.major, v.minor, v.patch)
end

--- Random numbers, as a C array.
function M.random(n)
  local array = ffi.new("float[?]", n)
  for k = 0, n - 1 do array[k] = math.random() - 0.5 end
  return array
end

--- Seconds that a function takes.
function M.seconds(body)
  local start = clock()
  body()
  return clock() - start
end

--- c [m,n] = op(a) [m,k] · op(b) [k,n]; a and b are as long as they are stored, row by row.
function M.product(transpose_a, transpose_b, m, n, k, a, b, c)
  local T, N = 84, 78 -- 'T', 'N'
  dnnl.dnnl_sgemm(transpose_a and T or N, transpose_b and T or N, m, n, k, 1, a, transpose_a and m or k, b,
    transpose_b and k or n, 0, c, n)
end

return M
