--- The display of a run: a progress bar on a terminal, lines elsewhere.
local printable = require "perigee.base.printable"
local screen = require "perigee.record.screen"

---@class perigee.Progress
local Progress = {}
Progress.__index = Progress

function Progress.new(options)
  options = options or {}
  return setmetatable({
    quiet = options.quiet, terminal = screen.is_terminal(), shown = 0, prefix = options.prefix or "", last = nil,
    clock = options.clock,
  }, Progress)
end

local function duration(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  if seconds >= 3600 then return ("%d:%02d:%02d"):format(seconds / 3600, seconds / 60 % 60, seconds % 60) end
  return ("%d:%02d"):format(seconds / 60, seconds % 60)
end
Progress.duration = duration

--- A lasting line.
function Progress:line(format, ...)
  if self.quiet then return end
  if self.terminal and self.bar_length then io.write("\r", (" "):rep(self.bar_length), "\r") end
  self.bar_length = nil
  io.write(self.prefix, printable.text(format:format(...)), "\n")
  io.flush()
end

--- Leaves the bar as it is and continues below it.
function Progress:close()
  if self.bar_length then io.write "\n" end
  self.bar_length = nil
end

--- One step's state; at most ten times a second on a terminal, where `due` says so elsewhere.
--- state: { step, last, stage, losses = ordered { name, value }, rate (images/s) }
function Progress:step(state, due)
  if self.quiet then return end
  local now = self.clock()
  if self.terminal then
    if now - self.shown < 0.1 and state.step ~= state.last then return end
  elseif not due then return end
  self.shown = now
  local losses = {}
  for k, entry in ipairs(state.losses) do losses[k] = ("%s %.4f"):format(entry[1], entry[2]) end
  local remaining = state.last and state.rate > 0
    and duration((state.last - state.step) * state.batch / state.rate) or "?"
  local text = ("%sstep %d%s  %s  %s  %.0f images/s  %s left"):format(self.prefix, state.step,
    state.last and "/" .. state.last or "", state.stage, table.concat(losses, "  "), state.rate, remaining)
  self:show(text, state.last and state.last > 0 and math.min(1, state.step / state.last) or 0)
end

--- A text and, on a terminal, a bar of which `share` is full, in place of the last; a line elsewhere.
function Progress:show(text, share)
  if self.quiet then return end
  if not self.terminal then
    io.write(text, "\n")
  else
    local room = screen.size() - 1 -- a line that wraps could not be written over
    local width = math.max(0, math.min(20, room - #text - 3))
    local full = math.floor(share * width)
    if width > 0 then text = "[" .. ("="):rep(full) .. (" "):rep(width - full) .. "] " .. text end
    text = text:sub(1, room)
    local pad = math.max(0, (self.bar_length or 0) - #text)
    io.write("\r", text, (" "):rep(pad))
    self.bar_length = #text
  end
  io.flush()
end

--- As show, but no more often than one can follow: ten times a second on a terminal, every half minute elsewhere, and
--- at the end, when `share` is 1.
function Progress:follow(text, share)
  local now = self.clock()
  if share < 1 and now - self.shown < (self.terminal and 0.1 or 30) then return end
  self.shown = now
  self:show(self.prefix .. text, share)
end

return Progress
