--- Makes a run's teacher ready: weights read from a file, or, where the teacher is itself a recipe, trained now and kept in
--- a cache whose key is everything that decides the result.
local checkpoint = require "perigee.train.checkpoint"
local core = require "perigee.core.ffi"
local folder = require "perigee.train.folder"
local Group = require "perigee.train.group"
local json = require "perigee.io.json"
local recipes = require "perigee.recipe"

local ffi = require "ffi"
local M = {}

--- Where trained teachers are kept: PERIGEE_CACHE, or ~/.cache/perigee.
function M.cache_folder()
  local given = os.getenv "PERIGEE_CACHE"
  if given then return given end
  return (os.getenv "XDG_CACHE_HOME" or (os.getenv "HOME" or ".") .. "/.cache") .. "/perigee"
end

--- A short digest of a text: two 32-bit FNV-1a sums of it and of its reverse, in hexadecimal. It names a cache entry; what
--- the entry was made of is compared in full before it is used.
local function digest(text)
  local bit = require "bit"
  local function fnv(s)
    local h = 0x811c9dc5
    for k = 1, #s do
      h = bit.bxor(h, s:byte(k))
      h = bit.tobit(tonumber((ffi.cast("uint64_t", ffi.cast("uint32_t", h)) * 16777619ULL) % 4294967296ULL))
    end
    return bit.tohex(h)
  end
  return fnv(text) .. fnv(text:reverse())
end

--- Materialises a model from a checkpoint's tensors under a prefix such as "ema.student.".
local function load_model(model, path, prefix, options)
  local _, file = checkpoint.open(path)
  local made = model:materialise { seed = 0, dtype = options.dtype, device = options.device, purpose = options.purpose }
  for _, entry in ipairs(made.layout) do
    local name = prefix .. entry.name
    if not file.tensors[name] then error(("%s has no tensor '%s'"):format(file.path, name), 0) end
    Group.slice(made.flat, entry):copy_(file:read(name))
  end
  file:close()
  return made
end
M.load_model = load_model

local function train_recipe(run, recipe)
  local config = json.encode(folder.config(recipe, { version = ffi.string(core.C.pg_version()), isa = ffi.string(core.C.pg_cpu_isa()) }))
  local path = ("%s/teachers/%s-%s"):format(M.cache_folder(), recipe.name, digest(config))
  local done = path .. "/finished.json"
  local file = io.open(done, "r")
  local cached = file and file:read "*a"
  if file then file:close() end
  if cached == config then
    run.progress:line("teacher %s: from the cache %s", recipe.name, path)
    return path
  end
  run.progress:line("teacher %s: training it now; it will be kept in %s", recipe.name, path)
  folder.make_folder(path)
  local started = core.C.pg_clock_seconds()
  local taught, outcome = require("perigee.train").train(recipe, {
    folder = path, resume = #checkpoint.list(path) > 0, device = run.device, quiet = run.progress.quiet, prefix = "teacher: ",
  })
  for _, group in ipairs(taught.groups) do group:free() end
  if outcome == "interrupted" then error("interrupted while the teacher was being trained; the same command goes on from there", 0) end
  run.progress:line("teacher %s: %d steps in %.0f s", recipe.name, taught.step, core.C.pg_clock_seconds() - started)
  local out, message = io.open(done, "w")
  if not out then error("cannot write " .. message, 0) end
  out:write(config)
  out:close()
  return path
end

--- Materialises the teacher of a run.
function M.prepare(run)
  local teacher = run.recipe.teacher
  local options = { dtype = run.recipe.dtype, device = run.device, purpose = "teacher" }
  if recipes.is_recipe(teacher) then
    local path = train_recipe(run, teacher)
    load_model(teacher.student, path, "ema.student.", options)
  else
    teacher:load(options)
  end
end

return M
