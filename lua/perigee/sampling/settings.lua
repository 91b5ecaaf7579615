--- How samples are drawn, as commands take it: options beside the recipe's own `sample`.
local M = {}

--- Options of a command that samples.
M.options = {
  { name = "cfg", type = "number", help = "guidance scale (default: the recipe's)" },
  { name = "interval", type = "string", help = "LOW:HIGH, times in which guidance acts (default: the recipe's)" },
  { name = "sampler", type = "string", help = "euler, heun or sde (default: the recipe's)" },
  { name = "steps", type = "integer", help = "evaluations of the student (default: the recipe's)" },
  { name = "seed", type = "integer", default = 0, help = "seed of noise and drawn labels" },
  { name = "batch", type = "integer", default = 64, help = "samples at a time; changes nothing but speed and memory" },
  { name = "labels", type = "string", default = "balanced", help = "balanced, drawn, or numbers such as 3 or 1,5,7" },
  { name = "ema", type = "boolean", default = true,
    help = "use the moving averages of the weights; --no-ema does not" },
}

local function interval(text, default)
  if not text then return default end
  local low, high = text:match "^([%d%.]+):([%d%.]+)$"
  if not low or not tonumber(low) or not tonumber(high) then
    error(("--interval %s: expected LOW:HIGH, such as 0:0.72"):format(text), 0)
  end
  return { tonumber(low), tonumber(high) }
end

local function labels_of(text, classes)
  if text == "balanced" or text == "drawn" then return text end
  local list = {}
  for word in text:gmatch "[^,]+" do
    local label = tonumber(word)
    if not label or label % 1 ~= 0 or label < 0 or label >= classes then list = {} break end
    list[#list + 1] = label
  end
  if #list == 0 then
    error(("--labels %s: expected balanced, drawn, or numbers from 0 to %d"):format(text, classes - 1), 0)
  end
  return list
end

--- What generate.each() takes, but for `first` and `count`.
---@param options table         values of M.options
---@param recipe perigee.Recipe
function M.resolve(options, recipe)
  local settings = recipe.sample
  local sampler, steps = options.sampler or settings.sampler, options.steps or settings.steps
  if not require("perigee.samplers").methods[sampler] then
    error(("--sampler %s: there are euler, heun and sde"):format(sampler), 0)
  end
  if steps < 1 then error(("--steps %d: at least 1"):format(steps), 0) end
  return {
    cfg = options.cfg or settings.cfg, interval = interval(options.interval, settings.interval), steps = steps,
    sampler = sampler, seed = options.seed, labels = labels_of(options.labels, recipe.student.classes),
    path = recipe:flow_matching().path, dtype = recipe.dtype, tf32 = recipe.tf32, batch = options.batch,
    decode = recipe.data.decode and function(x) return recipe.data:decode(x) end or nil,
  }
end

return M
