--- perigee report: runs as one page for a browser.
local M = {
  summary = "write runs as one HTML page",
  usage = "[LABEL=]RUN... [options]",
  description = "Writes one file that needs no network: curves, angles by noise level, stages and why they ended,\n"
    .. "changes, samples by step, what the plan said beside what was measured, and how the runs differ.\n"
    .. "A run may be going still.",
  options = {
    { name = "out", type = "string", value = "FILE.html", help = "the page (default: the first RUN/report.html)" },
    { name = "samples", type = "integer", default = 12, min = 0, help = "grids of samples a run, at most" },
    { name = "plan", type = "boolean", default = true, help = "price the recipes too; this runs the runs' recipe.lua",
      off = "don't price the recipes" },
  },
}

function M.run(options)
  if not options[1] then error("perigee report needs a run's folder", 0) end
  local records = require("perigee.compare.labels").read(options, require("perigee.compare.record").read)
  local out = options.out or records[1].path .. "/report.html"
  local page = require("perigee.compare.page").html(records, { samples = options.samples, plan = options.plan })
  require("perigee.io.files").write(out, page)
  require("perigee.base.printable").print(("%s (%s)"):format(out, require("perigee.base.size").text(#page)))
  return 0
end

return M
