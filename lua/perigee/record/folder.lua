--- A run's folder on disk: recipe.lua as it was, config.json, events.jsonl, checkpoints/, and a lock that keeps a
--- second trainer out.
local checkpoint = require "perigee.record.checkpoint"
local describe = require "perigee.recipe.describe"
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

--- Writes recipe.lua and config.json of a new run.
---@param options { recipe_path?: string, recipe_options?: table }
function M.describe(path, recipe, options)
  if options.recipe_path then files.write(path .. "/recipe.lua", files.read(options.recipe_path)) end
  files.write(path .. "/config.json",
    json.encode(describe.config(recipe, { options = options.recipe_options })) .. "\n")
end

return M
