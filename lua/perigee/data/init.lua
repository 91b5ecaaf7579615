--- Data sets: pg.data.NAME is what lua/perigee/data/NAME.lua returns, a function from options to a data set.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local nearest = require "perigee.base.nearest"

local folder = core.home .. "/lua/perigee/data"

local function names()
  local found = {}
  for _, file in ipairs(files.list(folder)) do
    local name = file:match "^([%w_]+)%.lua$"
    if name and name ~= "init" then found[#found + 1] = name end
  end
  return found
end

---@class perigee.data
---@field shapes fun(options: perigee.ShapesOptions): perigee.Dataset
---@field cifar10 fun(options: perigee.Cifar10Options): perigee.Dataset
---@field folder fun(options: perigee.FolderOptions): perigee.Dataset
---@field arrays fun(options: perigee.ArraysOptions): perigee.Dataset
---@field imagenet_latents fun(options: perigee.ImagenetLatentsOptions): perigee.Dataset
---@field dataset fun(options: perigee.NewDataset): perigee.Dataset

return setmetatable({}, {
  __index = function(data, name)
    if type(name) ~= "string" or not files.exists(("%s/%s.lua"):format(folder, name)) then
      core.fail("there is no data set pg.data.%s; there are %s%s", tostring(name), table.concat(names(), ", "),
        nearest.hint(tostring(name), names()))
    end
    local make = require("perigee.data." .. name)
    rawset(data, name, make)
    return make
  end,
})
