--- The REPL: Lua with Perigee and, if one was named, a recipe at hand.
local chunk = require "perigee.sandbox.chunk"
local complete = require "perigee.console.complete"
local help = require "perigee.console.help"
local language = require "perigee.core.language"
local nearest = require "perigee.base.nearest"
local render = require "perigee.console.render"
local session = require "perigee.console.session"
local tables = require "perigee.base.tables"
local terminal = require "perigee.console.terminal"

local M = {}

local COMMANDS = [[
:help NAME   what the library says about a name: run, run:attention, stop.gradient_angle, ops, tensor, x:narrow
:reload      load the recipe again after it was edited; its run starts again
:quit        leave (so does Ctrl-D)
`pg` is the library, `ops`, `loss`, `stop` and `signal` parts of it. Ctrl-C ends an evaluation.]]

local AT_HAND = "`run`, `student`, `teacher`, `data`, `losses` and `recipe` are at hand; try run:batch(), run:loss(), "
  .. "run:train(10)."

local function is_users(source) return source:sub(1, 6) == "=input" end

--- A person's globals over those of Perigee and of Lua. A name that nobody set is an error: it is misspelt.
local function new_environment(pg)
  local base = { pg = pg, ops = pg.ops, loss = pg.loss, stop = pg.stop, signal = pg.signal }
  local environment = setmetatable({}, { __index = function(own, name)
    local value = base[name]
    if value == nil then value = language[name] or rawget(_G, name) end
    if value == nil then
      error(("undefined variable '%s'%s"):format(tostring(name),
        nearest.hint(tostring(name), tables.sorted_keys(tables.merged(own, base, _G)))), 2)
    end
    return value
  end })
  base._G = environment
  return environment, base
end

--- Runs until the person leaves. `path`: a recipe, a run's folder or a checkpoint.
---@param path? string
---@param options? perigee.OpeningOptions
function M.run(path, options)
  local pg = require "perigee"
  local environment, base = new_environment(pg)
  local open -- the session of the recipe

  local function load()
    if open then session.close(open) end
    open = nil
    open = session.open(path, options)
    for name, value in pairs(session.names(open)) do base[name] = value end
  end

  local function guard(guarded, body, ...)
    local results = { guarded(xpcall, body, chunk.handler(is_users), ...) }
    local n = table.maxn(results)
    if not results[1] then return false, tostring(results[2]) end
    return results[2], unpack(results, 3, n)
  end

  local function report(message)
    print((tostring(message):gsub("^interrupted\n.*", "interrupted")))
  end

  print(("Perigee %s; :help helps, Ctrl-D leaves"):format(pg.version))
  if path then
    load()
    print(tostring(open))
    print(AT_HAND)
  end
  --- What is there by name, with its kind.
  local function at_hand()
    local lines = {}
    for _, name in ipairs { "run", "recipe", "student", "teacher", "teachers", "data", "losses" } do
      if base[name] then
        local text = name == "losses" and table.concat(tables.sorted_keys(base.losses), ", ")
          or rawget(base[name], "name") or render.value(base[name]):match "^[^\n]*"
        lines[#lines + 1] = ("\n  %-8s %s"):format(name, text)
      end
    end
    local own = tables.sorted_keys(environment)
    if #own > 0 then lines[#lines + 1] = "\n  yours    " .. table.concat(own, ", ") end
    return #lines > 0 and "\nAt hand:" .. table.concat(lines) or ""
  end

  terminal.loop {
    prompt = "perigee> ",
    complete = function(word, before)
      return complete.proposals(word, { environment, base, _G }, { before = before })
    end,
    evaluate = function(text, guarded, last)
      local f, message, unfinished = chunk.compile(text, environment)
      if not f then
        if unfinished and not last then return true end
        print(message)
        return false
      end
      local fine, result = guard(guarded, function()
        local function collect(...) return render.values({ ... }, select("#", ...)) end
        return collect(f())
      end)
      if not fine then report(result)
      elseif result ~= "" then print(result) end
      return false
    end,
    command = function(line, guarded)
      local word, rest = line:match "^(%S*)%s*(.-)%s*$"
      if word == "quit" or word == "q" then return true end
      if word == "help" and rest ~= "" then print(help.text(rest, { environment, base, _G }))
      elseif word == "reload" then
        if not path then print "nothing was opened: perigee repl RECIPE or perigee repl RUN" return end
        local fine, message = guard(guarded, load)
        print(fine and tostring(open) or message)
      else print(COMMANDS .. at_hand()) end
    end,
  }
  if open then session.close(open) end
end

return M
