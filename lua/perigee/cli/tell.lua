--- perigee tell: one line for a running trainer, from a script.
return {
  summary = "evaluate one line in a running trainer",
  usage = "RUN 'EXPR' [options]",
  description = "Evaluates Lua text in the trainer that works in the folder RUN, between two steps, and prints its\n"
    .. "value. The exit status is 1 where that is an error.",
  options = { { name = "limit", type = "number", default = 1, min = 0.01, max = 600,
    help = "seconds that it may take" } },
  run = function(options)
    if not options[2] then error("perigee tell needs a run and a text: perigee tell runs/NAME 'run.step'", 0) end
    return require("perigee.console.attach").tell(options[1], options[2], options.limit) and 0 or 1
  end,
}
