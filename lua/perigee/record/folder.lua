--- A run's folder on disk: recipe.lua and config.json as they are in force, older ones in before/, events.jsonl,
--- checkpoints/, and a lock that keeps a second trainer out.
local checkpoint = require "perigee.record.checkpoint"
local configuration = require "perigee.record.config"
local describe = require "perigee.recipe.describe"
local differences = require "perigee.record.differences"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local turn = require "perigee.record.turn"

local M = {}

--- An error if a new run would write over an old one.
function M.check(path, resume)
  if path and not resume and #checkpoint.list(path) > 0 then
    error(("%s already holds a run: continue it with --resume, or choose another folder with --runs"):format(path), 0)
  end
end

--- Locks a folder against other trainers. If another process trains in it: waits with `wait`, else fails.
---@param run { progress: perigee.Progress }
---@param path string
---@param wait? boolean
---@return perigee.Lock?  nil: interrupted while waiting
function M.hold(run, path, wait)
  local lock, holder
  local function attempt()
    lock, holder = files.lock(path .. "/lock")
    return lock
  end
  if wait then return turn.wait(run, ("another process trains in %s: waiting for it"):format(path), attempt) end
  if attempt() then return lock end
  error(("%s: %s trains in this folder; wait for its end, stop it, or choose another folder with --name or --runs")
    :format(path, holder > 0 and ("process %d"):format(holder) or "another process"), 0)
end

--- config.json's text.
local function config_text(recipe, options)
  return json.encode(describe.config(recipe, { options = options.recipe_options, command = options.said })) .. "\n"
end

--- Writes recipe.lua and config.json of a new run.
---@param options { recipe_path?: string, recipe_options?: table, said?: table }
function M.describe(path, recipe, options)
  if options.recipe_path then files.write(path .. "/recipe.lua", files.read(options.recipe_path)) end
  files.write(path .. "/config.json", config_text(recipe, options))
end

--- The files that were in force until a step are kept in before/step-NNNNNNN/.
local function keep(path, step, name)
  if not files.exists(path .. "/" .. name) then return end
  local folder = ("%s/before/step-%07d"):format(path, step)
  files.make_folder(folder)
  if not files.exists(folder .. "/" .. name) then files.rename(path .. "/" .. name, folder .. "/" .. name) end
end

--- Brings recipe.lua and config.json of a run that continues after a step up to date; the older ones stay in before/.
--- Returns the settings that have changed, as texts.
---@param options { recipe_path?: string, recipe_options?: table, said?: table }
---@return { name: string, before: string, after: string }[]
function M.update(path, recipe, options, step)
  local changed, config = {}, path .. "/config.json"
  local text, older = config_text(recipe, options), files.exists(config) and files.read(config)
  if older ~= text then
    local configs = { older and configuration.read(path) or {}, json.decode(text, config) }
    for _, one in ipairs(configs) do one.options, one.command = nil, nil end -- what they decide is there too
    for _, row in ipairs(older and differences.rows(configs) or {}) do
      changed[#changed + 1] = { name = row.name, before = row[1], after = row[2] }
    end
    keep(path, step, "config.json")
    files.write(config, text)
  end
  local recipe_text = options.recipe_path and files.read(options.recipe_path)
  local copy = path .. "/recipe.lua"
  if recipe_text and not (files.exists(copy) and files.read(copy) == recipe_text) then
    keep(path, step, "recipe.lua")
    files.write(copy, recipe_text)
  end
  return changed
end

return M
