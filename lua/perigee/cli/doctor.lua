--- perigee doctor: what this machine has, and what that means for Perigee, in plain words.
local ffi = require "ffi"
local read = require("perigee.base.whole_file").read

local rows -- the report: { "processor", "AMD ...", "note" }, or { "a heading" }

local function section(title) rows[#rows + 1] = { title } end
local function row(name, value, note) rows[#rows + 1] = { name, value, note } end

--- The first line that a shell command prints, or nil.
local function first_line(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe and pipe:read "*l"
  if pipe then pipe:close() end
  return line ~= "" and line or nil
end

local function gigabytes(bytes) return ("%.1f GB"):format(bytes / 1e9) end

--- The processor's feature flags as a set ("flags" on x86, "Features" on ARM).
local function processor_flags()
  local flags, text = {}, read "/proc/cpuinfo" or ""
  local line = text:match "\nflags%s*:([^\n]*)" or text:match "\nFeatures%s*:([^\n]*)"
  for flag in (line or ""):gmatch "%S+" do flags[flag] = true end
  return flags
end

--- The chosen kernels, and why not better ones.
local function isa_note(isa, flags)
  local isas = require("perigee.core.list").read("base/isas.h", { "PG_ALL_ISAS" })
  local asked = (os.getenv "PERIGEE_ISA" or "") ~= "" and ", as PERIGEE_ISA asks" or ""
  for k, name in ipairs(isas.names) do
    local text, description = unpack(isas.columns[name])
    local better = isas.columns[isas.names[k + 1]] or {}
    if text == isa then
      if flags[better[3]] then return description .. asked end
      return description .. (name == "v3" and "; this processor has no AVX-512" or "")
    end
  end
  return "this machine's own"
end

--- What the processor has for bfloat16, and what precision = "bf16" makes of it.
local function bfloat16(flags)
  local has = {}
  if flags.amx_bf16 then has[#has + 1] = "AMX" end
  if flags.avx512_bf16 then has[#has + 1] = "AVX-512 BF16" end
  if flags.bf16 then has[#has + 1] = "ARMv8.6" end
  row("bfloat16", #has > 0 and ("in hardware (%s)"):format(table.concat(has, ", ")) or "not in hardware",
      require("perigee.core.device").cpu_multiplies_bfloat16() and "matmul uses AVX-512 BF16"
      or (#has > 0 and "not used: " or "") .. "computed in float32, and no faster than it")
end

--- Rates of matrix multiplications and of the memory, measured now (some tenths of a second).
local function speed()
  local machine = require("perigee.cost.machine").find "cpu"
  row("matmul", ("float32 %.0f GFLOP/s, bfloat16 %.0f GFLOP/s"):format(machine.float32 / 1e9, machine.bfloat16 / 1e9),
      "measured now")
  row("memory speed", ("%.1f GB/s"):format(machine.bandwidth / 1e9), "measured now")
end

--- Why there are not as many threads as processors.
local function threads_note()
  if (os.getenv "OMP_NUM_THREADS" or "") ~= "" then return "as OMP_NUM_THREADS says" end
  local quota = require("perigee.core.limits").quota()
  return quota and ("this container's quota is %g processors"):format(quota)
end

local function processor()
  local C = require("perigee.core.ffi").C
  local flags, isa = processor_flags(), ffi.string(C.pg_cpu_isa())
  section "Processor"
  row("processor", ffi.string(C.pg_cpu_name()))
  row("threads", tostring(C.pg_threads()), threads_note())
  row("kernels", isa, isa_note(isa, flags))
  bfloat16(flags)
  speed()
end

local function memory()
  section "Memory and disk"
  local found = require("perigee.core.limits").memory()
  if found then
    row("memory", ("%s, %s free"):format(gigabytes(found.total), gigabytes(found.free)),
        found.free < 2e9 and "little: the quickstart needs about 2 GB" or nil)
    if found.total < found.machine then
      row("limit", gigabytes(found.total), ("%s's; the machine has %s"):format(found.whose, gigabytes(found.machine)))
    end
  end
  local line = first_line "df -Pk . | tail -n 1"
  local disk = line and tonumber(line:match "^%S+%s+%d+%s+%d+%s+(%d+)")
  if disk then
    row("disk here", gigabytes(disk * 1024) .. " free",
        disk * 1024 < 2e9 and "little: a checkpoint of SiT-B/2 takes 2 GB" or nil)
  end
end

local function module_version(name)
  local fine, module = pcall(require, name)
  if not fine then
    return "missing", "install it: sudo apt-get install lua-filesystem"
  end
  return type(module) == "table" and (tostring(module._VERSION or "found"):gsub("^%a[%a ]*", "")) or "found"
end

local function libraries()
  local C = require("perigee.core.ffi").C
  section "Software"
  row("perigee", ffi.string(C.pg_version()))
  row("LuaJIT", (jit.version:gsub("^LuaJIT ", "")),
      not jit.status() and "its compiler is off on this system: Lua parts run slower" or nil)
  local wanted = { libjpeg = "JPEG pictures need it: sudo apt-get install libjpeg-dev",
    libwebp = "WebP pictures need it: sudo apt-get install libwebp7" }
  for name, version in ffi.string(C.pg_library_versions()):gmatch "([%w+-]+) ([%w.+-]+)" do
    row(name, version, version == "missing" and wanted[name] or nil)
  end
  row("lua-filesystem", module_version "lfs")
  local cairo = pcall(ffi.load, "libcairo.so.2")
  row("cairo", cairo and "found" or "missing",
      not cairo and "perigee compare --out needs it: sudo apt-get install libcairo2" or nil)
end

--- cuDNN's library and version, by the build's cache; nil and a reason where there is one that is not used.
local function cudnn_of(cache)
  local library = cache:match "\nPERIGEE_CUDNN_LIBRARY:%w+=([^\n]*)" or ""
  local header = read((cache:match "\nPERIGEE_CUDNN_INCLUDE:%w+=([^\n]*)" or "") .. "/cudnn_version.h") or ""
  local version = table.concat({ header:match "define CUDNN_MAJOR (%d+)", header:match "define CUDNN_MINOR (%d+)",
    header:match "define CUDNN_PATCHLEVEL (%d+)" }, ".")
  if cache:match "\nPERIGEE_HAS_CUDNN:%w+=yes" then return library, version end
  if version ~= "" then return nil, ("%s at %s is not used: a version 9 from 9.13.1 on is"):format(version, library) end
end

--- What the toolkit, the driver and the plugin say, and what that means.
local function cuda()
  local core = require "perigee.core.ffi"
  local C, build = core.C, os.getenv "PERIGEE_BUILD" or core.home .. "/build"
  section "CUDA"
  local compiler = first_line "command -v nvcc || ls /usr/local/cuda/bin/nvcc"
  local release = compiler and first_line(("'%s' --version | grep -o 'release [0-9.]*'"):format(compiler))
  row("toolkit", compiler and ("%s (%s)"):format(release or "nvcc", compiler) or "none",
      not compiler and "the CUDA plugin can't be built here" or nil)
  local cache = read(build .. "/CMakeCache.txt") or ""
  local cublas = cache:match "\nPERIGEE_CUBLASLT:%w+=([^\n]*)" or ""
  local has_cublas = cublas ~= "" and not cublas:match "NOTFOUND$"
  row("cuBLAS", has_cublas and cublas or "none",
      compiler and not has_cublas and "install it, or name its folder in PERIGEE_CUBLAS" or nil)
  local cudnn, which = cudnn_of(cache)
  row("cuDNN", cudnn and ("%s (%s)"):format(which, cudnn) or "none",
      not cudnn and (which or compiler and "attention is our own then; PERIGEE_CUDNN names its folder") or nil)
  local version = (read "/proc/driver/nvidia/version" or ""):match "Module%s+([%d.]+)"
  local loaded = pcall(ffi.load, "libcuda.so.1")
  row("driver", version or (loaded and "libcuda.so.1, version unknown" or "none"),
      not loaded and (version and "its library libcuda.so.1 is missing" or nil) or nil)
  local opened = C.pg_device_open(C.PG_CUDA) == 0
  local problem = not opened and ffi.string(C.pg_last_error()) or nil
  if opened then
    local free, total = require("perigee.core.device").memory "cuda"
    row("GPU", ffi.string(C.pg_device_description(C.PG_CUDA)))
    row("GPU memory", ("%s free of %s"):format(gigabytes(free), gigabytes(total)))
  else
    row("plugin", problem)
  end
  local sum
  if opened then sum = "--device cuda works"
  elseif compiler and has_cublas and loaded then sum = "--device cuda builds the plugin when it is first used"
  elseif loaded then sum = "a GPU driver was found; install the CUDA toolkit with cuBLAS to build the plugin"
  elseif compiler then sum = "CUDA kernels can be compiled here, but no GPU was found to run them"
  else sum = "no GPU: Perigee runs on the processor (--device cpu)" end
  row("so", sum)
end

local function run()
  rows = {}
  processor()
  memory()
  libraries()
  cuda()
  local lines = {}
  for _, entry in ipairs(rows) do
    if #entry == 1 then
      lines[#lines + 1] = (#lines > 0 and "\n" or "") .. entry[1]
    else
      local note = entry[3] and entry[3] ~= "" and "  -- " .. entry[3] or ""
      lines[#lines + 1] = ("  %-16s%s%s"):format(entry[1], entry[2], note)
    end
  end
  io.write(table.concat(lines, "\n"), "\n")
  return 0
end

return { summary = "say what this machine has: processor, libraries, CUDA", usage = "", run = run }
