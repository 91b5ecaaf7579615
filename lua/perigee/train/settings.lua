--- The settings that may be changed while a run is going, and how a run that continues takes a checkpoint's over: a
--- setting stays as it was, unless the recipe's has been changed since. The newest decision wins.
local json = require "perigee.io.json"
local policy = require "perigee.record.policy"
local schedules = require "perigee.schedules"

local M = {}

--- Settings as a checkpoint holds them, schedules as plain data. `finish`: a policy as source or text.
---@param losses { name: string, weight: number|perigee.Schedule }[]
---@param finish? string
---@return { optim: table, ema: number, weights: table<string, number>, finish?: string }
function M.of(optim, ema, losses, finish)
  local weights = {}
  for _, entry in ipairs(losses) do weights[entry.name] = entry.weight end
  return { optim = schedules.plain_all(optim), ema = schedules.plain(ema), weights = schedules.plain_all(weights),
           finish = finish }
end

--- Takes values that were in force (`live`) over into `target`, the recipe's now, where the recipe's were the same
--- `before`.
function M.take_over(target, live, before)
  for key, value in pairs(live) do
    local old, now = before[key], target[key]
    if now ~= nil and json.encode { old } == json.encode { now } then target[key] = value end
  end
end

local function reads_the_step(stop)
  for _, signal in ipairs(stop.needs) do
    if signal.of_step then return true end
  end
  return false
end

--- The policy with which a checkpoint's run continues in a recipe's stage. One that was put in by hand stays, unless
--- the recipe's has been changed since. A policy other than the checkpoint's is asked from its beginning, and at this
--- step already (`owed`), as in a run that had it from the start; not if it reads losses of the step, which are no
--- longer known. A run that had finished continues if the recipe's policy was changed, whoever had ended it.
---@return { finish: perigee.Stop, source?: string, state: table, finished: boolean, owed: boolean }
function M.policy(state, stage)
  local live, before = state.settings, state.recipe_settings
  local changed = before.finish ~= nil and before.finish ~= stage.finish.text -- older checkpoints do not say it
  local source = not changed and live.finish or nil
  local finish = source and policy.read(source, stage.finish) or stage.finish
  local same = state.policy_text == finish.text
  local ask = not same or state.undecided or (changed and state.finished)
  return {
    finish = finish, source = source, state = same and state.policy or finish:initial(),
    finished = state.finished and not ask, owed = ask and not reads_the_step(finish) or false,
  }
end

return M
