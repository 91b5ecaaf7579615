--- Makes a run's teacher ready: weights read from a file, or, where the teacher is itself a recipe, trained now and
--- kept in a cache whose key is everything that decides the result.
local ffi = require "ffi"
local checkpoint = require "perigee.record.checkpoint"
local core = require "perigee.core.ffi"
local environment = require "perigee.base.environment"
local describe = require "perigee.recipe.describe"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local owner = require "perigee.io.owner"
local slice = require("perigee.nn.module").slice
local recipes = require "perigee.recipe"
local tensor = require "perigee.core.tensor"

local M = {}

--- Where trained teachers are kept: PERIGEE_CACHE, or ~/.cache/perigee.
function M.cache_folder()
  return environment.get "PERIGEE_CACHE" or environment.folder("XDG_CACHE_HOME", ".cache") .. "/perigee"
end

--- The same, made for its user alone if it isn't there; an error if others can have changed it.
function M.trusted_cache()
  local folder = M.cache_folder()
  owner.make_private_folder(folder)
  owner.expect_trusted(folder)
  return folder
end

--- Where the choices of algorithms are kept.
function M.choices_path() return M.trusted_cache() .. "/choices.json" end

--- A short digest of a text: two 32-bit FNV-1a sums of it and of its reverse, in hexadecimal. It names a cache entry;
--- what the entry was made of is compared in full before it is used.
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
  local made = model:materialise {
    dtype = options.dtype, device = options.device, purpose = options.purpose, initialise = false,
  }
  for _, entry in ipairs(made.layout) do
    tensor.tidy(function() slice(made.flat, entry.offset, entry.shape):copy_(file:read(prefix .. entry.name)) end)
  end
  return made
end
M.load_model, M.digest = load_model, digest

--- Everything that a trained teacher depends on, as text: settings, data, the bytecode of the recipe's own losses,
--- this build and its instruction set.
local function identity(recipe)
  local own = {}
  for _, stage in ipairs(recipe.stages) do
    for _, entry in ipairs(stage.losses) do
      if entry.loss.code then own[#own + 1] = digest(string.dump(entry.loss.code, true)) end
    end
  end
  return json.encode(describe.config(recipe, {
    version = ffi.string(core.C.pg_version()), isa = ffi.string(core.C.pg_cpu_isa()),
    data_digest = recipe.data:digest(), own = own,
  }))
end

--- Where a trained recipe is kept, the file that says it is done, and what stands in that. An error if others can have
--- changed any of it.
local function place_of(recipe)
  local key, cache = identity(recipe), M.cache_folder()
  local path = ("%s/teachers/%s-%s"):format(cache, recipe.name, digest(key))
  owner.expect_trusted(cache, path)
  return path, path .. "/finished.json", key
end

--- The folder in the cache of a teacher that was trained before, or nil.
function M.trained(recipe)
  local path, done, key = place_of(recipe)
  return files.exists(done) and files.read(done) == key and path or nil
end

--- Trains a recipe, or finds what that made before. Returns the run's folder, or nil where it was interrupted.
local function train_recipe(holder, recipe)
  M.trusted_cache()
  local path, done, key = place_of(recipe)
  if M.trained(recipe) then
    holder.progress:line("teacher %s: from the cache %s", recipe.name, path)
    return path
  end
  holder.progress:line("teacher %s: training it now; it will be kept in %s", recipe.name, path)
  local started = core.C.pg_clock_seconds()
  local taught, outcome = holder.train(recipe, {
    folder = path, resume = true, wait = true, device = holder.device, quiet = holder.progress.quiet,
    prefix = "teacher: ",
  })
  local steps = taught.step
  taught:free()
  if outcome == "interrupted" then return nil end
  holder.progress:line("teacher %s: %d steps in %.0f s", recipe.name, steps, core.C.pg_clock_seconds() - started)
  files.write(done, key)
  return path
end

--- Materialises a teacher of a run. False: it was being trained, and that was interrupted.
---@param holder perigee.Teacher
---@param entry perigee.RecipeTeacher
---@return boolean
function M.prepare(holder, entry)
  local teacher = entry.source
  local options = { dtype = holder.recipe.dtype, device = holder.device, purpose = "teacher" }
  if recipes.is_recipe(teacher) then
    local path = train_recipe(holder, teacher)
    if not path then return false end
    load_model(teacher.student, path, "ema.student.", options)
  else
    core.at(holder.recipe.place, teacher.load, teacher, options)
  end
  return true
end

return M
