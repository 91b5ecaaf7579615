--- Losses. A loss is a value: its settings, the modules it trains with the student (`modules`), and a pure function
--- of a step's context (`compute`, see stage/context.lua) that returns one number.
---
--- pg.loss.NAME is made of what lua/perigee/losses/NAME.lua returns: a function from options to a loss's fields.
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"

---@class perigee.losses
local M = {}

---@class perigee.Loss
---@field name string             by which its weight is reached
---@field kind string             its file: pg.loss.KIND
---@field place? string           where it was written: "recipe.lua:12"
---@field settings table          for config.json; what decides its value, but for `code`
---@field compute fun(self: perigee.Loss, context: perigee.Context): perigee.Value  one number
---@field per_sample? fun(self: perigee.Loss, context: perigee.Context): perigee.Value  its value for each sample, [B],
---  after compute()
---@field progress? fun(self: perigee.Loss, context: perigee.Context, value: perigee.Value): table<string,
---  perigee.Value> how far its alignment has come, of what compute() gave: { loss = value }, by default
---@field modules fun(self: perigee.Loss, student: perigee.Module, teacher?: perigee.Module): table<string,
---  perigee.Module>              modules trained with the student: nothing, by default
---@field validate? fun(self: perigee.Loss, student: perigee.Module, teacher?: perigee.Module)  errors before a run
---@field needs_teacher? boolean  the stage keeps the teacher, and the loss counts as alignment
---@field teacher? string         the name of its teacher, where the recipe has several
---@field is_denoising? boolean   it says the `path` and the `time`s of the stage's denoising forward pass
---@field path? string            "linear" or "cosine"
---@field time? perigee.Time
---@field pairs? { student: integer, teacher: integer }[]  blocks whose attention it compares
---@field asks? string[]         fields of the student that it reads (stage/student.lua)
---@field code? function          a function of the recipe's own, which its settings do not tell
local Loss = {}
Loss.__index = Loss
function M.is_loss(x) return getmetatable(x) == Loss end

function Loss.modules() return {} end

local function make(kind, define)
  return function(...)
    local loss = define(...)
    loss.kind, loss.place = kind, core.user_position()
    return setmetatable(loss, Loss)
  end
end

return room.open({ module = "perigee.losses", what = "loss", make = make }, M)
