--- A loss of the training steps themselves by noise level: signal.loss_by_time { "denoise" }. Its value is over the
--- samples of the steps since the last reading: { mean =, error =, count =, bins = { { from =, to =, count =, mean =,
--- error = }, one a bin of t } }, as of signal.stream_angle.
local bins = require "perigee.base.bins"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.LossByTimeOptions
---@field [1] string       the loss's name
---@field name? string     "NAME by time"
---@field bins? integer    of noise levels: 8
---@field from? integer    0
---@field every? integer   steps between readings, which one is over: 50

---@class perigee.signals
---@field loss_by_time fun(options: perigee.LossByTimeOptions): perigee.Signal

local function entry_of(stage, name)
  local names = {}
  for k, entry in ipairs(stage.losses) do
    if entry.name == name then return entry end
    names[k] = entry.name
  end
  core.fail("signal.loss_by_time: the stage '%s' has no loss '%s'; it has %s", stage.name, name,
    table.concat(names, ", "))
end

---@param options perigee.LossByTimeOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.loss_by_time", options, {
    [1] = "string", name = { "string" }, bins = { "count", 8 }, from = { "natural", 0 }, every = { "count", 50 },
  })
  if o.bins > 64 then core.fail("signal.loss_by_time: %d bins; the most are 64", o.bins) end
  local loss_name = o[1]
  o.name = o.name or loss_name .. " by time"
  local function fresh() return bins.new(o.bins) end
  return {
    name = o.name, settings = o, of_step = true,
    key = ("loss_by_time %s %d %d %d"):format(loss_name, o.bins, o.from, o.every),
    check = function(_, stage)
      if not entry_of(stage, loss_name).loss.per_sample then
        core.fail("signal.loss_by_time: the loss '%s' has no value for each sample: its file or loss.custom gives "
          .. "none (per_sample)", loss_name)
      end
    end,
    stream = {
      record = function(_, trace)
        local loss = entry_of(trace.stage, loss_name).loss
        return loss:per_sample(trace.context)
      end,
      absorb = function(_, state, numbers, times)
        state = state or fresh()
        for k, t in ipairs(times) do bins.add(state, t, numbers[k]) end
        return state
      end,
    },
    measure = function(_, _, state)
      local each, all = bins.summaries(state or fresh())
      all.bins = each
      return all, fresh()
    end,
  }
end
