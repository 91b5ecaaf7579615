--- perigee attach: a console in a running trainer.
return {
  summary = "open a console in a running trainer",
  usage = "RUN [options]",
  description = "Opens a console in the trainer that works in the folder RUN. Lines are evaluated between two\n"
    .. "steps; what they change is written into the run's log, and made again by --resume.",
  options = { { name = "limit", type = "number", default = 1, min = 0.01, max = 600,
    help = "seconds that a line may take" } },
  run = function(options)
    local folder = options[1] or error("perigee attach needs the folder of a run: perigee attach runs/NAME", 0)
    require("perigee.console.attach").attach(folder, options.limit)
    return 0
  end,
}
