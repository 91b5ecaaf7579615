--- perigee repl: Lua with Perigee, and the parts of a recipe or of a trained run, at hand.
return {
  summary = "explore tensors, models and recipes in Lua",
  usage = "[RECIPE|RUN|CHECKPOINT] [options]",
  description = "Reads Lua, evaluates it and prints what it returns. With a recipe, its student, teacher, data and\n"
    .. "losses are at hand, and a run of it that advances step by step.",
  options = {
    { name = "set", type = "pairs", help = "set an option of the recipe; may be repeated" },
    { name = "ema", type = "boolean", default = true,
      help = "use the moving averages of a run's weights; --no-ema does not" },
    { name = "device", type = "string",
      help = "where the recipe's run lives: cpu or cuda (default: the recipe's, else cpu)" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  },
  run = function(options)
    local core = require "perigee.core.ffi"
    if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
    if options.device then require("perigee.core.device").choose(options.device) end
    local values = {}
    for key, value in pairs(options.set or {}) do values[key] = tonumber(value) or value end
    require("perigee.console.repl").run(options[1], { values = values, device = options.device, ema = options.ema })
    return 0
  end,
}
