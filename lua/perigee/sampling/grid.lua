--- A grid of samples as one PNG.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local files = require "perigee.io.files"
local generate = require "perigee.sampling.generate"
local ops = core.ops

local M = {}

--- Joins uint8 images [N,H,W,C] into one [R·H, columns·W, C] on the CPU, row by row; missing places are black.
function M.join(images, columns)
  images = images:to "cpu"
  local n, h, w, c = unpack(images.shape)
  columns = columns or math.ceil(math.sqrt(n))
  local rows = math.ceil(n / columns)
  if rows * columns > n then
    images = ops.concat({ images, ops.fill({ rows * columns - n, h, w, c }, { value = 0, dtype = "uint8" }) }, 1)
  end
  local by_row = images:reshape({ rows, columns, h, w, c }):permute { 1, 3, 2, 4, 5 }
  return by_row:contiguous():reshape { rows * h, columns * w, c }
end

--- Samples during a run, with the moving averages, as the recipe's `sample` says or `given` instead; returns the
--- picture's path.
---@param given? { count?: integer, cfg?: number, interval?: number[], sampler?: string, steps?: integer,
---  seed?: integer }
function M.during(run, given)
  local recipe, spec = run.recipe, {}
  for key, value in pairs(recipe.sample) do spec[key] = { type(value), value } end
  local settings = require("perigee.core.check").options("sample", given or {}, spec)
  if settings.count < 1 or settings.count % 1 ~= 0 then
    core_ffi.fail("sample: count = %s", tostring(settings.count))
  end
  local matching = recipe:flow_matching()
    or core_ffi.fail("sample: the recipe '%s' trains no student that samples", recipe.name)
  local parts = {}
  generate.each(recipe.student, {
    count = settings.count, batch = math.min(settings.count, 64), seed = settings.seed, cfg = settings.cfg,
    interval = settings.interval,
    sampler = settings.sampler, steps = settings.steps, path = matching.path,
    captures = (run.groups[1]:averages()),
    dtype = recipe.dtype, device = run.device, tf32 = recipe.tf32,
    decode = recipe.data.decode and function(x) return recipe.data:decode(x) end or nil,
  }, function(_, images) parts[#parts + 1] = images:clone() end)
  local images = #parts == 1 and parts[1] or ops.concat(parts, 1)
  files.make_folder(run.folder .. "/samples")
  local path = ("%s/samples/step-%07d.png"):format(run.folder, run.step)
  require("perigee.io.png").save(path, M.join(images))
  run:log { event = "sample", step = run.step, file = path:match "[^/]+$" }
  return path
end

return M
