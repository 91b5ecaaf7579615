--- perigee tensorboard: a run's log as TensorBoard reads it.
local M = {
  summary = "write runs' logs as TensorBoard reads them",
  usage = "RUN... [options]",
  description = "Writes events.out.tfevents.* into each run's folder: losses, signals and other numbers, grids of\n"
    .. "samples, stages as text; then `tensorboard --logdir RUNS` shows them. What an earlier call wrote there is\n"
    .. "replaced. `perigee train --tensorboard` writes it while it trains.",
  options = {
    { name = "follow", type = "boolean", default = false, help = "go on as the logs grow, until interrupted" },
    { name = "every", type = "number", default = 2, min = 0.1, help = "seconds between two looks, of --follow" },
  },
}

--- An error where a trainer is writing the file that would be replaced.
local function expect_unwritten(path)
  local files = require "perigee.io.files"
  if not (files.exists(path .. "/config.json") and files.exists(path .. "/lock")) then return end
  local called = require("perigee.record.config").read(path).command
  if not (called and called.command and called.command.tensorboard == true) then return end
  local lock = files.lock(path .. "/lock")
  if not lock then error(path .. ": this run is going with --tensorboard and writes its file itself", 0) end
  lock:free()
end

--- Where an event lies in time: the log has no clock, but rates, and an end when it was last written.
local function clock_of(path)
  local record = require("perigee.compare.record").read(path)
  local seconds, last = record:axis "seconds", record.last_step
  local ended = require("perigee.io.files").stat(path .. "/events.jsonl").changed
  return function(step) return ended - seconds(last) + seconds(math.min(step, last)) end
end

--- Writes a whole log in place of earlier files. Returns what --follow continues.
local function convert(path)
  local Board, files = require "perigee.record.tensorboard", require "perigee.io.files"
  local events = require("perigee.record.events").read(path)
  local at, step = clock_of(path), 0
  for _, old in ipairs(Board.files(path)) do files.remove(old) end
  local board = Board.open(path, function() return at(step) end)
  for _, event in ipairs(events) do
    step = event.step or step
    board:take(event)
  end
  board.clock = os.time
  return { board = board, path = path, offset = #files.read(path .. "/events.jsonl"), rest = "" }
end

--- Takes in what a log has got since; a log that got shorter went back to a checkpoint, and is written again.
local function follow(state)
  local files, json = require "perigee.io.files", require "perigee.io.json"
  local log = state.path .. "/events.jsonl"
  local size = files.size(log)
  if size < state.offset then
    state.board:close()
    return convert(state.path)
  end
  if size == state.offset then return state end
  local got = state.rest .. files.read(log, state.offset, size - state.offset)
  state.offset = size
  local done = 1
  for line, after in got:gmatch "([^\n]*)\n()" do
    local fine, event = pcall(json.decode, line)
    if fine and type(event) == "table" and type(event.event) == "string" then state.board:take(event) end
    done = after
  end
  state.rest = got:sub(done)
  return state
end

function M.run(options)
  if not options[1] then error("perigee tensorboard needs a run's folder", 0) end
  local core, files = require "perigee.core.ffi", require "perigee.io.files"
  local turn, states = require "perigee.record.turn", {}
  for k, path in ipairs(options) do
    path = path:gsub("(.)/+$", "%1")
    if not files.exists(path .. "/events.jsonl") then
      error(("%s is not a run: events.jsonl is missing"):format(path), 0)
    end
    expect_unwritten(path)
    states[k] = convert(path)
    print(states[k].board.path)
  end
  if options.follow then core.check(core.C.pg_signals_install()) end
  while options.follow and turn.pause(options.every) do
    for k, state in ipairs(states) do states[k] = follow(state) end
  end
  for _, state in ipairs(states) do state.board:close() end
  return 0
end

return M
