--- perigee watch: runs on a terminal, as they go.
local M = {
  summary = "watch runs on a terminal",
  usage = "[LABEL=]RUN... [options]",
  description = "Shows where runs stand: step, stage, speed, time left, curves of the losses and of angles by noise\n"
    .. "level, why stages ended. Reads the logs alone, so it works over ssh, and on runs that have ended.\n"
    .. "Without a terminal it prints once.",
  options = {
    { name = "every", type = "number", default = 2, min = 0.1, help = "seconds between two looks" },
    { name = "once", type = "boolean", default = false, help = "print once" },
  },
}

local CLEAR, END_OF_LINE, REST = "\27[H", "\27[K\n", "\27[J"

function M.run(options)
  if not options[1] then error("perigee watch needs a run's folder", 0) end
  local core, screen = require "perigee.core.ffi", require "perigee.record.screen"
  local turn, watch = require "perigee.record.turn", require "perigee.compare.watch"
  local function page(rows)
    local records = require("perigee.compare.labels").read(options, require("perigee.compare.record").read)
    return watch.lines(records, (screen.size()), rows)
  end
  if options.once or not screen.is_terminal() then
    print(table.concat(page(math.huge), "\n"))
    return 0
  end
  core.check(core.C.pg_signals_install())
  local begun = false
  repeat
    local _, rows = screen.size()
    local lines = page(rows)
    io.write(begun and CLEAR or "\27[2J" .. CLEAR, table.concat(lines, END_OF_LINE, 1, math.min(#lines, rows - 1)),
      END_OF_LINE, REST)
    io.flush()
    begun = true
  until not turn.pause(options.every)
  return 0
end

return M
