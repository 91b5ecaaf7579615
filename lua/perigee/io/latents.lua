--- Files of latents as REPA keeps them: float32 [2C,h,w], C channels of a mean and C of a deviation. Two tools write
--- such files that look alike: REPA's, and ours, encode pictures in [−1, 1], NVIDIA's edm2 encodes them in [0, 1]. The
--- means of the channels tell one from the other.
local core = require "perigee.core.ffi"
local npy = require "perigee.io.npy"
local tensor = require "perigee.core.tensor"

local M = {}

--- Of edm2's latents of ImageNet, by channel.
M.edm2 = { mean = { 5.81, 3.25, 0.12, -2.15 }, deviation = { 4.17, 4.62, 3.71, 3.28 } }

local GROUPS, IN_GROUP = 8, 16 -- files that are looked at: some in a row at some places
local NEAR = 1.5               -- of a channel's mean over a group to edm2's

--- Adds the means of a file's channels to `sums`; an error where a deviation is none.
local function add(path, channels, sums)
  tensor.tidy(function()
    local moments = npy.load(path)
    local values, n = moments:pointer(), moments:numel()
    local of_channel = n / (2 * channels)
    for at = n / 2, n - 1 do
      if not (values[at] >= 0 and values[at] < math.huge) then
        core.fail("%s: its deviations, channels %d to %d, hold %g, and no deviation is negative: the file seems to "
          .. "hold mean and log-variance; write exp(0.5 * logvar) in the log-variance's place", path, channels + 1,
          2 * channels, values[at])
      end
    end
    for at = 0, n / 2 - 1 do
      local channel = math.floor(at / of_channel) + 1
      sums[channel] = sums[channel] + values[at] / of_channel
    end
  end)
end

--- Whether means of channels are those of edm2's latents.
---@param means number[]
function M.are_edm2(means)
  if #means ~= #M.edm2.mean then return false end
  for k, mean in ipairs(M.edm2.mean) do
    if math.abs(means[k] - mean) > NEAR then return false end
  end
  return true
end

--- Looks at up to 128 files, spread over all: means of their channels. An error where some seem to be edm2's and others
--- not, or where deviations are negative.
---@param folder string
---@param names string[]
---@param channels integer  C
---@return number[] means
function M.means(folder, names, channels)
  local total, looked_at, found = {}, 0, {}
  for c = 1, channels do total[c] = 0 end
  for group = 0, math.min(GROUPS, #names) - 1 do
    local first = math.floor(group * #names / math.min(GROUPS, #names)) + 1
    local last = math.min(first + IN_GROUP, math.floor((group + 1) * #names / math.min(GROUPS, #names)) + 1) - 1
    local sums, means = {}, {}
    for c = 1, channels do sums[c] = 0 end
    for k = first, last do add(folder .. "/" .. names[k], channels, sums) end
    for c = 1, channels do
      means[c], total[c] = sums[c] / (last - first + 1), total[c] + sums[c]
    end
    looked_at = looked_at + last - first + 1
    found[M.are_edm2(means)] = names[first]
  end
  if found[true] and found[false] then
    core.fail("%s: %s and those after it seem to be edm2's latents (of pictures in [0, 1]), %s and those after it not; "
      .. "they must not be mixed", folder, found[true], found[false])
  end
  for c = 1, channels do total[c] = total[c] / looked_at end
  return total
end

--- What edm2 multiplies each channel by, once its mean is taken away: to a deviation of ½.
---@return number ...
function M.scale_of_edm2()
  local scale = {}
  for k, deviation in ipairs(M.edm2.deviation) do scale[k] = 0.5 / deviation end
  return unpack(scale)
end

-- ---- what a student sees ------------------------------------------------------------------------------------------

--- One number for all channels, or a tensor [1,C,1,1] of one for each.
local function by_channel(what, key, channels, given)
  if type(given) == "number" then return given end
  if #given ~= channels then
    core.fail("%s: %s has %d numbers for %d channels", what, key, #given, channels)
  end
  return tensor.outlive(function() return tensor.tensor(given, { 1, channels, 1, 1 }, "float32") end)
end

--- (z − shift)·scale, each a number or one a channel; and, where one of them is one a channel, what undoes it: no
--- autoencoder knows of that.
---@param what string  what to call it in an error
---@param channels integer
---@param scale number|number[]
---@param shift number|number[]
---@return fun(z: perigee.Operand): perigee.Operand
---@return (fun(z: perigee.Operand): perigee.Operand)?
function M.scaled(what, channels, scale, shift)
  local by_channels = type(scale) == "table" or type(shift) == "table"
  scale, shift = by_channel(what, "scale", channels, scale), by_channel(what, "shift", channels, shift)
  local function as(x, z) return type(x) == "number" and x or x:to(z.dtype) end
  local function scaled(z)
    if shift ~= 0 then z = z - as(shift, z) end
    return z * as(scale, z)
  end
  return scaled, by_channels and function(z) return z / as(scale, z) + as(shift, z) end or nil
end

--- A draw of each sample's latent, [B,C,h,w], from means and deviations [B,2C,h,w]: of the step's own randomness.
function M.draw(moments, state, dtype)
  local ops = require "perigee.core.ops"
  local parts = ops.chunk(moments:to(dtype), 2, 2)
  local noise = ops.random_normal(parts[1].shape, { state = state, purpose = "latents", dtype = dtype })
  return parts[1] + parts[2] * noise
end

return M
