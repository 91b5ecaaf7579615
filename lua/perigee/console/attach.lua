--- A console in a running trainer, in a person's terminal.
local client = require "perigee.console.client"
local help = require "perigee.console.help"
local printable = require "perigee.base.printable"
local terminal = require "perigee.console.terminal"

local M = {}

local COMMANDS = [[
:help NAME   what the library says about a name: run, run:pause, stop, stop.gradient_angle, ops, tensor
:quit        leave; the run continues (so does Ctrl-D)
Lines are evaluated between two steps. `run` is the run, `student` its model, `stop` and `signal` make policies.]]

local function at_hand()
  local pg = require "perigee"
  return { { pg = pg, ops = pg.ops, stop = pg.stop, signal = pg.signal,
    run = help.documented "console/control.lua" } }
end

--- One line for one answer; true where more lines are needed.
local function show(answer)
  if answer.output and answer.output ~= "" then io.write(printable.text(answer.output)) end
  local said = answer.error or answer.value
  if said and (answer.error or said ~= "") then io.write(printable.text(said), "\n") end
end

--- Talks with the run in a folder until the person leaves.
---@param seconds? number  limit of an evaluation
function M.attach(folder, seconds)
  local connection = client.connect(folder)
  local hello = connection.hello
  printable.print(("attached to %s at step %d, stage %s; :help helps, Ctrl-D leaves"):format(hello.name, hello.step,
    hello.stage))
  local function ask(request) return connection:ask(request) end
  terminal.loop {
    prompt = hello.name .. "> ",
    complete = function(word, before)
      local fine, answer = pcall(ask, { complete = word, before = before })
      return fine and answer.proposals or {}
    end,
    evaluate = function(text, guarded, last)
      local fine, answer = guarded(ask, { eval = text, limit = seconds })
      if not fine then
        if answer == "interrupted" then
          print "interrupted: the run may still evaluate that line, for as long as its limit allows"
        else error(answer, 0) end
        return false
      end
      if answer.unfinished and not last then return true end
      show(answer)
      return false
    end,
    command = function(line)
      local word, rest = line:match "^(%S*)%s*(.-)%s*$"
      if word == "quit" or word == "q" then return true end
      if word == "help" and rest ~= "" then io.write(help.text(rest, at_hand()), "\n")
      else print(COMMANDS) end
    end,
  }
  connection:close()
end

--- Evaluates one text in the run and prints its value; returns whether that worked.
function M.tell(folder, text, seconds)
  local connection = client.connect(folder)
  local answer = connection:ask { eval = text, limit = seconds }
  connection:close()
  if answer.error then
    io.write(printable.text(answer.output or ""))
    io.stderr:write("perigee: ", printable.text(answer.error), "\n")
    return false
  end
  show(answer)
  return true
end

return M
