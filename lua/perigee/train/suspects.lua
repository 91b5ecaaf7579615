--- After a loss that is not finite: which samples of the step's batch hold numbers that are not finite.
local tensor = require "perigee.core.tensor"
local core = require "perigee.core.ffi"

local M = {}

--- A sample's place: "sample 12", and its file where it has one of its own.
local function place(data, field, number)
  local source = data.sources[field.name] or {}
  local file = source.names and source.folder .. "/" .. source.names[number + 1] or source.path
  return file and ("sample %d (%s)"):format(number, file) or ("sample %d"):format(number)
end

--- "the data set's field 'latents' holds NaN or infinity in sample 12 (vae-sd/00000/x.npy)", for the first such sample
--- of the batch that step read, made once more; nil where all are finite.
---@param run perigee.Run
---@param step integer
---@return string?
function M.describe(run, step)
  local recipe = run.recipe
  local data = recipe.data
  local loader = data:loader { seed = recipe.seed, batch = recipe.batch, threads = 0, depth = 1,
    more = run.teacher.cache or nil }
  loader:seek(step - 1)
  local batch, numbers = loader:next(), nil
  local found = tensor.tidy(function()
    numbers = loader:indices():totable()
    for _, field in ipairs(loader.fields) do
      if core.is_floating[field.dtype] then
        local values = batch[field.name]:to "float64"
        local sums = (values * 0):reshape({ #numbers, values:numel() / #numbers }):sum(2):totable()
        for k, number in ipairs(numbers) do
          if sums[k] ~= 0 then
            return ("the data set's field '%s' holds NaN or infinity in %s"):format(field.name,
              place(data, field, number))
          end
        end
      end
    end
  end)
  loader:close()
  return found
end

return M
