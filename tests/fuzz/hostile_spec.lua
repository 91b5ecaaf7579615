-- Lines in a console that mean harm: known ways out of a Lua sandbox one by one, and lines drawn from a grammar against
-- a live trainer, whose steps must go on. PERIGEE_LINES=10000 draws so many (the suite 60), PERIGEE_SEED=N others.
local chunk = require "perigee.sandbox.chunk"
local client = require "perigee.console.client"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local limit = require "perigee.sandbox.limit"
local sandbox = require "perigee.console.sandbox"
local tiny = require "tests.lua.tiny"

local C = core.C
local LINES = tonumber(os.getenv "PERIGEE_LINES" or 60)

-- ---- known ways out ---------------------------------------------------------------------------------------------

-- by what they need; each gives an error, or one of the values
local ESCAPES = {
  ["bytecode"] = { "loadstring('\\27LJ\\2\\0')()", "loadstring(string.dump(print))()", "string.dump(function() end)",
    "('').dump(print)", "(''):dump()", "load('\\27LJ')", "load(function() return '\\27LJ' end)" },
  ["files and libraries"] = { "require 'ffi'", "require('os').execute 'true'", "package.loaded.ffi",
    "package.loaded._G.io", "package.preload", "io.open 'x'", "io.popen 'true'", "os.execute 'true'", "os.exit(1)",
    "os.remove 'x'", "os.getenv 'HOME'", "dofile '/etc/passwd'", "loadfile '/etc/passwd'", "module 'x'", "arg[0]" },
  ["ffi"] = { "ffi.C.system 'true'", "ffi.cdef 'int x;'", "(1LL).x", "(1LL)(2)", "getmetatable(1LL).__index",
    "setmetatable({}, getmetatable(1LL)) error 'x'", "(2i).re.x", "pg.zeros(2).handle", "pg.zeros(2):pointer()",
    "pg.ops.matmul(1LL, 1LL)", "run:set('student.final.projection.bias', 1LL)", "run.optim.lr = 1LL",
    "run.optim.lr = 3i", "pg.zeros(1LL)", "pg.zeros(2)[1LL]", "pg.tensor { 1LL }" },
  ["environments"] = { "getfenv(0).io", "getfenv(print).io", "setfenv(1, {})", "setfenv(print, {})", "_G._G.io",
    "_G.debug", "rawget(_G, 'io').open", "setmetatable(_G, { __index = print })", "setmetatable(_G, nil)",
    "getmetatable(_G).__index.io" },
  ["the debug library"] = { "debug.getregistry()", "debug.getupvalue(print, 1)", "debug.setmetatable('', {})",
    "debug.sethook()", "debug.getmetatable(run).__index", "jit.off()", "jit.opt.start 'hotloop=1'", "jit.util.funck",
    "newproxy(true)", "newproxy(run)", "collectgarbage 'stop'", "gcinfo()" },
  ["metatables"] = { "getmetatable('').__index", "getmetatable('').__index.rep", "getmetatable(run).__index",
    "getmetatable(pg.zeros(1)).__index", "setmetatable('', {})", "setmetatable(run, {})", "setmetatable(print, {})",
    "setmetatable({}, { __gc = print })", "rawset(run, 'x', 1)", "rawget(run, 'x').y", "rawset('', 'x', 1)",
    "pg.zeros(1).__index.x", "run.__index.x", "next(run)", "rawequal()" },
  ["overriding"] = { "string.format = nil error 'x'", "string.rep = print error 'x'", "table.insert = nil error 'x'",
    "math.floor = nil error 'x'", "pg.zeros = print", "pg.ops.add = print", "stop.at_step = print", "run.step = 1",
    "tostring = nil error 'x'", "_G.error = nil x()", "bit.band = nil error 'x'" },
  ["coroutines"] = { "coroutine.wrap(function() end)()", "coroutine.create(print)", "coroutine.yield()",
    "coroutine.running().x" },
  ["error objects"] = { "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "error(setmetatable({}, { __index = error, __tostring = error }))", "error(run)", "error(pg.zeros(1))",
    "pcall(error, setmetatable({}, { __tostring = function() return 1 end })) error()",
    "xpcall(error, function() while true do end end)", "xpcall(error, xpcall) error 'x'",
    "assert(false, setmetatable({}, { __concat = error }))" },
  ["loops that no hook sees"] = { "while true do end", "::a:: goto a", "repeat until false",
    "local function f() return f() end f()", "for k = 1, 1e18 do end", "while pcall(error) or true do end",
    "string.rep('x', 1e9)", "('x'):rep(1e5):find(('.-'):rep(30) .. 'y')", "string.format('%99999d', 1)",
    "unpack({}, 1, 1e9)", "unpack(setmetatable({}, { __index = function() while true do end end }), 1, 3) error 'x'",
    "table.concat({ 1, 2 }, ('x'):rep(1e8))", "('x'):byte(1, 1e9) error 'x'", "select(-1)", "string.char(-1)",
    "local t = {} for k = 1, 1e9 do t[k] = t end",
    "print(setmetatable({}, { __tostring = function() return 7 end })) error 'x'",
    "local s = 'x' while true do s = s .. s end",
    "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x.y",
    "pg.zeros(1e5, 1e5)", "pg.grad(function() while true do end end, { pg.ones(1) })" },
}

local function library()
  local list = {}
  for _, name in ipairs { "string", "table", "math", "os", "io", "debug", "coroutine", "package", "bit", "jit" } do
    for key, value in pairs(_G[name]) do list[name .. "." .. tostring(key)] = value end
  end
  return list
end

describe("a way out of the sandbox by", function()
  for kind, lines in pairs(ESCAPES) do
    it(kind .. " leads nowhere", function()
      local before, class = library(), debug.getmetatable ""
      local index = class.__index
      for _, line in ipairs(lines) do
        local run = sandbox.record { name = "run", get = { step = function() return 1 end, optim = function()
          return sandbox.record { name = "run.optim", set = { lr = function(value)
            assert(type(value) == "number", "expected a number")
          end } }
        end }, call = { set = function(_, _, value) assert(require("perigee").is_tensor(sandbox.unwrap(value))) end } }
        local environment = sandbox.environment({ run = run, student = run }, function() end)
        local compiled = chunk.compile(line, environment)
        if compiled then
          local owner = limit.client()
          local fine, message = limit.run(0.05, compiled, chunk.handler(limit.is_users), owner)
          limit.release(owner)
          assert.is_false(fine and message ~= nil, ("%s gave %s"):format(line, tostring(message)))
        end
        local now = library()
        for name, value in pairs(before) do assert.is_true(rawequal(now[name], value), line .. " changed " .. name) end
        assert.is_true(debug.getmetatable "" == class and class.__index == index, line)
      end
    end)
  end
end)

-- ---- the grammar ------------------------------------------------------------------------------------------------

local state = (tonumber(os.getenv "PERIGEE_SEED" or 1) * 7919) % 2147483647
local function any(list)
  state = state * 16807 % 2147483647
  return list[state % #list + 1]
end

local NAMES = { "run", "student", "pg", "stop", "signal", "schedule", "ops", "string", "table", "math", "bit", "_G",
  "setmetatable", "getmetatable", "pcall", "xpcall", "error", "loadstring", "next", "pairs", "ipairs", "rawget",
  "rawset", "select", "unpack", "tostring", "tonumber", "type", "print", "assert", "rawequal", "t", "f", "s", "x",
  "io", "debug" }
local KEYS = {
  "step", "stage", "optim", "lr", "losses", "denoise", "weight", "finish", "ema", "folder", "name", "blocks",
  "__index", "__metatable", "__gc", "__tostring", "__call", "handle", "shape", "zeros", "ones", "ops", "matmul",
  "rep", "gsub", "find", "format", "dump", "sort", "concat", "insert", "remove", "custom", "at_step", "loss",
  "parameters", "parameter", "set", "sample", "checkpoint", "_G", "random", "floor", "at", "T", "sum", "item",
  "copy_", "free" }
local NUMBERS = { "0", "1", "-1", "2", "0/0", "1/0", "-1/0", "1e308", "2^53", "0.5", "1LL", "-1ULL", "3i",
  "0x7fffffff" }
local TEXTS = { "''", "'x'", "'student.final.projection.bias'", "('x'):rep(1e5)", "'\\0\\255'", "'%'", "'.-.-.-b'",
  "'return _G'", "'\\27LJ\\2'", "'%b()'", "'(((('", "[[x]]" }

local expression

--- What cannot be meant: values for settings that no setting takes.
local function wrong_value() return any { "0/0", "-1", "{}", "'x'", "print", "nil", "1/0", "run", "1LL", "pg" } end

local function arguments(depth)
  local list = {}
  for k = 1, any { 0, 1, 1, 2, 3 } do list[k] = expression(depth - 1) end
  return table.concat(list, ", ")
end

local function place(depth)
  local text = any(NAMES)
  for _ = 1, any { 0, 1, 1, 2, 3 } do
    if any { true, true, false } then text = text .. "." .. any(KEYS)
    else text = text .. "[" .. expression(depth - 1) .. "]" end
  end
  return text
end

local function body(depth)
  return any { "return " .. expression(depth - 1), "while true do end", "error(" .. expression(depth - 1) .. ")",
    "return f(...)", place(depth - 1) .. " = " .. wrong_value(),
    "for k = 1, 1e9 do " .. place(depth - 1) .. " = k end" }
end

function expression(depth)
  if depth <= 0 then return any { any(NAMES), any(NUMBERS), any(TEXTS), "{}", "nil", "..." } end
  return any { any(NUMBERS), any(TEXTS), place(depth), ("%s(%s)"):format(place(depth), arguments(depth)),
    ("(%s):%s(%s)"):format(expression(depth - 1), any(KEYS), arguments(depth)),
    ("function(...) %s end"):format(body(depth)),
    ("setmetatable({ %s }, { [%s] = %s })"):format(arguments(depth), any { "'__index'", "'__tostring'", "'__call'",
      "'__gc'", "'__metatable'", "'__len'", "'__concat'" }, expression(depth - 1)),
    ("{ %s, %s = %s }"):format(expression(depth - 1), any { "x", "needs", "block", "path", "count" },
      expression(depth - 1)),
    ("%s %s %s"):format(expression(depth - 1), any { "+", "..", "==", "<", "and", "or", "%", "^", "/" },
      expression(depth - 1)),
    ("%s(%s)"):format(any { "pcall", "xpcall", "loadstring", "tostring", "unpack", "next", "pairs" },
    arguments(depth)) }
end

local function statement()
  return any { expression(3), expression(2), "t = " .. expression(2), "f = function(...) " .. body(2) .. " end",
    "return " .. expression(3), place(2) .. " = " .. wrong_value(), "x = " .. expression(3),
    ("for k, v in %s do %s end"):format(any { "pairs(t)", "pairs(run)", "next, _G", "ipairs(" .. expression(1) .. ")" },
      body(2)),
    ("while %s do %s end"):format(expression(1), body(1)), ("local s = %s return s(%s)"):format(expression(2),
      arguments(2)), expression(2) .. " " .. expression(2) }
end


describe("a live trainer", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

  it("goes on under lines drawn from a grammar", function()
    local run = in_folder "runs/tiny"
    local train = ("train tests/lua/console_recipe.lua --align 100000000 --total 200000000 --checkpoint 0 --runs %s"):
      format(in_folder "runs")
    local pipe = io.popen(("( %s ) >%s 2>&1 & echo $!"):format(tiny.command(train, ("PERIGEE_CACHE=%s HOME=%s"):format(
      in_folder "cache", in_folder())), in_folder "output"))
    local pid = tonumber(pipe:read "*a")
    pipe:close()
    for _ = 1, 600 do
      if files.exists(run .. "/console.sock") then break end
      os.execute "sleep 0.1"
    end
    local clients, kinds, before = {}, { value = 0, error = 0, unfinished = 0 }, -1
    for k = 1, 4 do clients[k] = client.connect(run) end
    local function give_up(line)
      local stop = C.pg_clock_seconds() + 60
      return function() return C.pg_clock_seconds() > stop and error("no answer to: " .. line, 0) end
    end
    for k = 1, LINES do
      local line, which = statement(), k % #clients + 1
      local answer = clients[which]:ask({ eval = line, limit = 0.03 }, give_up(line))
      for kind in pairs(kinds) do kinds[kind] = kinds[kind] + (answer[kind] and 1 or 0) end
      if k % 20 == 0 then
        clients[which]:close()
        clients[which] = client.connect(run)
        local step = tonumber(clients[which]:ask({ eval = "run.step" }, give_up(line)).value)
        assert.is_true(step > before, ("step %d again, after %s"):format(step, line))
        before = step
      end
    end
    for k = 1, #clients do clients[k]:close() end
    os.execute(("kill -TERM %d"):format(pid))
    for _ = 1, 600 do
      if not files.exists("/proc/" .. pid) then break end
      os.execute "sleep 0.1"
    end
    local output = files.read(in_folder "output")
    assert.matches("stopped after step", output)
    assert.is_nil(output:find("traceback", 1, true), output)
    assert.is_nil(output:find("could not be served", 1, true), output)
    for _, name in ipairs(files.list(run)) do
      assert.matches("^%l+%.?%l*$", name) -- nothing that the run itself does not write
    end
    if LINES > 1000 then
      print(("%d lines, step %d: %d values, %d errors, %d unfinished"):format(LINES, before, kinds.value, kinds.error,
        kinds.unfinished))
    end
  end)
end)
