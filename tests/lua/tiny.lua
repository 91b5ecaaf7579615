--- The recipe tests/lua/recipes/tiny.lua in this process, and the built program on any recipe.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local recipes = require "perigee.recipe.load"
local train = require "perigee.train"

local M = { path = door.home .. "/tests/lua/recipes/tiny.lua" }

--- The recipe with some of its options set.
function M.recipe(options)
  local values = { weights = door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors" }
  for key, value in pairs(options or {}) do values[key] = value end
  return recipes.load(M.path, { values = values }).value
end

--- Trains the recipe, or `how.recipe`; `how` goes to train(), its `change(recipe)` before. Returns the run, freed, and
--- the outcome.
function M.train(options, how)
  how = how or {}
  local recipe = how.recipe or M.recipe(options)
  if how.change then how.change(recipe) end
  local run, outcome = train.train(recipe,
    { folder = how.folder, steps = how.steps, resume = how.resume, from = how.from, quiet = true })
  if not how.keep then run:free() end
  return run, outcome
end

--- The bytes of a run's checkpoint.
function M.checkpoint(folder, step) return files.read(("%s/checkpoints/step-%07d.safetensors"):format(folder, step)) end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
M.quote = quote

--- The shell command that runs the built program in the project's folder.
function M.command(arguments, environment)
  local program = (os.getenv "PERIGEE_BUILD" or door.home .. "/build") .. "/runtime/perigee"
  return ("cd %s && PERIGEE_HOME=%s OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive %s exec %s %s"):format(quote(door.home),
    quote(door.home), environment or "", quote(program), arguments)
end

--- Runs the built program: its exit status, and what it printed, errors included.
function M.perigee(arguments, environment)
  local pipe = io.popen("( " .. M.command(arguments, environment) .. " ) 2>&1; echo \"status $?\"")
  local text = pipe:read "*a"
  pipe:close()
  local output, status = text:match "^(.*)status (%d+)\n$"
  return tonumber(status), output
end

return M
