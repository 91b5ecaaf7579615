--- Consoles: the REPL, and those in a running trainer.
local chunk = require "perigee.sandbox.chunk"
local client = require "perigee.console.client"
local complete = require "perigee.console.complete"
local files = require "perigee.io.files"
local help = require "perigee.console.help"
local json = require "perigee.io.json"
local limit = require "perigee.sandbox.limit"
local pg = require "perigee"
local policy = require "perigee.record.policy"
local render = require "perigee.console.render"
local tiny = require "tests.lua.tiny"

local home = debug.getinfo(1, "S").source:match "^@(.*)/tests/lua/[^/]*$" or "."
if home:sub(1, 1) ~= "/" then home = require("lfs").currentdir() .. "/" .. home end
local terminal = dofile(home .. "/tests/lua/terminal.lua")
local in_folder = dofile(home .. "/tests/lua/folder.lua")(before_each, after_each)
local program = (os.getenv "PERIGEE_BUILD" or home .. "/build") .. "/runtime/perigee"
local recipe = home .. "/tests/lua/console_recipe.lua"

local function compiled(text, environment)
  return assert(chunk.compile(text, environment or setmetatable({}, { __index = _G })))
end

describe("a chunk", function()
  it("needs no return, and says when it is unfinished", function()
    assert.equal(3, compiled "1 + 2"())
    assert.equal(4, compiled "local x = 4 return x"())
    for _, text in ipairs { "for i = 1, 3 do", "f(", "x = [[", "if a then b()" } do
      assert.is_true((select(3, chunk.compile(text, {}))))
    end
    for _, text in ipairs { "x = = 3", "end", "\27LJ" } do assert.is_false((select(3, chunk.compile(text, {})))) end
  end)

  it("finds a function's source among others on its lines", function()
    local first, second = compiled "function(a) return a + 1 end, function(a)\n  return function() return a end\nend"()
    assert.equal("function(a) return a + 1 end", chunk.source_of(first))
    assert.equal("function(a)\n  return function() return a end\nend", chunk.source_of(second))
    local named = compiled "local function f(a) return a end return f"()
    assert.equal("function(a) return a end", chunk.source_of(named))
    assert.is_nil(chunk.source_of(function() end))
  end)

  it("knows what a function reads from outside", function()
    local f = compiled [[
      local limit = 1
      return function(e) y = 2 return e > limit, function() return math.abs(x) end end
    ]]()
    local captured, globals = chunk.outside(f)
    assert.same({ "limit" }, captured)
    assert.same({ "math", "x", "y" }, globals)
  end)
end)

describe("the limit", function()
  local HARD = "more work than a line"
  local function run(text, environment, seconds)
    return limit.run(seconds or 0.05, compiled(text, environment), chunk.handler(limit.is_users))
  end

  it("ends loops, in callbacks of library functions too", function()
    for _, text in ipairs { "while true do end", "repeat until false", "pg.tidy(function() while true do end end)",
                            "local function f() return f() end f()", "for i = 1, math.huge do local t = {} end" } do
      local fine, message = run(text, setmetatable({ pg = pg }, { __index = _G }))
      assert.is_false(fine)
      assert.matches("ended after", message)
    end
    assert.equal("function", type(string.dump)) -- everything is back
  end)

  it("holds in C, in handlers and within another limit", function()
    local sandbox = require "perigee.console.sandbox"
    for text, said in pairs {
      ["('a'):rep(40):find(('a?'):rep(40) .. ('a'):rep(40))"] = "ended after",
      ["string.match(('a'):rep(1e5), '.-.-.-b')"] = "ended after",
      ["xpcall(error, function() while true do end end)"] = "ended after",
      ["local function f() return ('x'):gsub('x', f) end f()"] = "stack overflow",
      ["local function f() table.sort({ 1, 2, 3 }, f) return true end f()"] = "stack overflow",
      ["local m = {} local t = setmetatable({}, m) m.__tostring = function() return ('%s'):format(t) end tostring(t)"] =
        "stack overflow",
      ["local t = {} for k = 1, 2e5 do t[k] = -k end while true do table.sort(t) end"] = "ended after",
      ["table.insert({}, -1e9, 1)"] = "position %-1000000000 of a list of 0",
      ["table.remove({ 1 }, -1e9)"] = "position", ["table.foreach({}, print)"] = "nil value",
      ["local x = pg.ones(3000, 3000) while true do x = x:matmul(x) end"] = HARD,
      ["local s = ('x'):rep(1e6) local t = {} for k = 1, 40 do s = s .. s t[k] = s end"] = "not enough memory",
      ["pg.zeros(600, 600):totable()"] = "a console gives at most",
      ["local s = ('x'):rep(2^23) return s:find(('x'):rep(2^22) .. 'y', 1, true)"] = "ended after",
      ["local s = ('x'):rep(2^24) while true do local _ = s:upper() end"] = "ended after",
      ["local s = ('1'):rep(2^24) while true do local _ = s + 1 end"] = "ended after",
      ["for k = 1, 1e5 do local _ = ('x'):rep(2^20) .. k end"] = "ended after", -- garbage is no memory
      ["return pg.zeros(2^17):unbind()"] = "ended after", -- a second later, in the library
      ["loadstring('return ' .. ('a or '):rep(2e4) .. 'a')"] = "a console compiles at most",
      ["for k = 1, 50 do _G[('x'):rep(1e5) .. k] = k end return not_there"] = "undefined variable 'not_there'$",
      ["local s = 'a:1 ' for k = 1, 22 do s = s .. s end error(s, 0)"] = "^a:1 a:1 .*%(shortened%)",
      ["pg.rand(1e8)"] = HARD, ["pg.zeros(14e6):sort()"] = HARD,
    } do
      local began = os.clock()
      local fine, message = run(text, (sandbox.environment({}, function() end)),
        said == HARD and 1 or said ~= "ended after" and 5 or nil)
      assert.is_false(fine, text)
      assert.matches(said, message)
      assert.is_true(os.clock() - began < 2, text)
    end
    local deadline = limit.run(0.05, function() -- a limit within one gives no more time
      for _ = 1, 5 do limit.run(10, compiled "while true do end", tostring) end
    end, tostring)
    assert.is_boolean(deadline)
    assert.equal(string, debug.getmetatable "".__index)
  end)

  it("goes no further than the evaluation, whenever the time is over", function()
    local grace, C, escaped, ended = limit.grace, require("perigee.core.ffi").C, 0, 0
    local function wait(stop) while C.pg_clock_seconds() < stop do end end
    jit.off(wait) -- compiled code has no hooks
    limit.grace = 0
    for k = 1, 400 do
      local stop = C.pg_clock_seconds() + 0.00095 + k % 100 * 1e-6
      local fine, inner = pcall(limit.run, 0.001, function() wait(stop) end, tostring)
      if not fine then escaped = escaped + 1 elseif not inner then ended = ended + 1 end
    end
    limit.grace = grace
    debug.sethook()
    assert.equal(0, escaped)
    assert.is_true(ended > 0)
  end)

  it("ends nothing but the evaluation, at whatever instruction it comes", function()
    local sandbox = require "perigee.console.sandbox"
    for _ = 1, 3 do
      assert.is_false((run("pcall(function() pg.zeros(2^17):unbind() end)", (sandbox.environment({}, function() end)))))
      local began = os.clock()
      repeat until os.clock() - began > 0.05 -- nobody's evaluation
      assert.is_nil(debug.gethook())
      assert.equal(3, pg.tidy(function() return 3 end))
      local x = pg.zeros(2) -- no scope of the library's is left open
      pg.tidy(function() end)
      assert.equal(0, x[1]:item())
    end
  end)

  it("leaves what must not be half done whole", function()
    local steps, endless = {}, compiled "while true do end"
    local fine, message = limit.run(0.05, function()
      limit.whole(function()
        steps[1] = "logged"
        local began = os.clock()
        repeat until os.clock() - began > 1.3 -- longer than the time that a library function is given
        steps[2] = "made"
      end)
      endless()
    end, tostring)
    assert.is_false(fine)
    assert.matches("ended after", message)
    assert.same({ "logged", "made" }, { steps[1], steps[2] })
  end)

  it("counts Lua's memory that a client keeps over its lines", function()
    local sandbox = require "perigee.console.sandbox"
    local one, other, environment = limit.client(), limit.client(), (sandbox.environment({}, function() end))
    local function line(text, who)
      assert(limit.run(5, compiled(text, environment), chunk.handler(limit.is_users), who))
      return limit.keeps_too_much(who)
    end
    for _ = 1, 4 do assert.is_nil(line("for k = 1, 10 do local _ = ('x'):rep(2^23) .. k end", one)) end -- garbage
    assert.is_nil(line("a = ('x'):rep(2^24) .. 1, ('x'):rep(2^24) .. 2", one))
    assert.is_nil(line("b = {} for k = 1, 2^20 do b[k] = k end", other))
    assert.is_nil(line("c = ('x'):rep(2^24) .. 3", one))
    assert.is_nil(line("a = { a, ('x'):rep(2^24) .. 4 }", one))
    assert.is_true(line("d = { ('x'):rep(2^24) .. 5 }", one) > 64 * 2 ^ 20)
    assert.is_nil(line("e = 1", other))
    assert.is_nil(line("a, c, d = nil", one))
    for k = 1, 8 do -- tables whose entries are gone keep their room
      local text = "old = {} for k = 1, 2^19 do old[k + 0.5] = k end for k in pairs(old) do old[k] = nil end"
      if line((text:gsub("old", "old" .. k)), other) then break end
      assert.is_true(k < 8)
    end
    limit.release(one)
    limit.release(other)
  end)

  it("counts the tensors that a client keeps over its lines", function()
    local sandbox = require "perigee.console.sandbox"
    local one, environment = limit.client(), (sandbox.environment({}, function() end))
    local function line(text)
      return limit.run(9, compiled(text, environment), chunk.handler(limit.is_users), one)
    end
    assert.is_true((line "kept = pg.zeros(80, 2^20)"))
    assert.is_true((line "part, kept = kept:narrow(1, 1, 1), nil")) -- a part keeps the whole
    assert.is_true((line "more = pg.zeros(100, 2^20)"))
    local fine, message = line "pg.zeros(100, 2^20)"
    assert.is_false(fine)
    assert.matches("more than a console may still make", message)
    assert.is_true((line "part, more = nil, nil"))
    assert.is_true((line "pg.zeros(200, 2^20)"))
  end)

  it("has patterns that match as Lua's do", function()
    local patterns, seed = require "perigee.sandbox.patterns", 5
    local function any(list)
      seed = (seed * 16807) % 2147483647
      return list[seed % #list + 1]
    end
    local items = { "a", ".", "%a", "%d", "[ab]", "[^b]", "[a-c]", "()", "(a)", "(b*)", "%b()", "%f[%w]", "1", "(",
      "%1" }
    for _ = 1, 3000 do
      local pattern, text = any { "^", "", "", "" }, ""
      for _ = 1, any { 1, 2, 3, 4 } do pattern = pattern .. any(items) .. any { "", "", "*", "+", "-", "?" } end
      for _ = 1, any { 0, 3, 6, 9 } do text = text .. any { "a", "b", "c", "1", " ", "(", ")" } end
      for name, arguments in pairs { find = { any { 1, -2, 4 } }, match = {}, gsub = { any { "<%0>", "%1" } } } do
        local expected = { pcall(string[name], text, pattern, unpack(arguments)) }
        local given = { pcall(patterns[name], text, pattern, unpack(arguments)) }
        assert.equal(expected[1], given[1], pattern)
        if expected[1] then assert.same(expected, given, ("%q in %q"):format(pattern, text)) end
      end
    end
  end)

  it("shows a user's own lines", function()
    local fine, message = run "local function deep(n) if n == 0 then error 'here' end\n deep(n - 1) end deep(2)"
    assert.is_false(fine)
    assert.matches("here\n  input %d+:1 in deep\n  input %d+:2 in deep", message)
    assert.is_nil(message:find("lua/perigee", 1, true))
  end)
end)

describe("completion, help and printing", function()
  it("proposes globals, keys and methods", function()
    local root = { batch = { images = pg.zeros { 2 }, labels = 1 }, band = 1 }
    assert.same({ "band", "batch", "break" }, (function()
      local list = {}
      for _, letter in ipairs { "ba", "br" } do
        for _, name in ipairs(complete.proposals(letter, { root })) do list[#list + 1] = name end
      end
      return list
    end)())
    assert.same({ "batch.images", "batch.labels" }, complete.proposals("batch.", { root }))
    assert.same({ "batch.images:reshape" }, complete.proposals("batch.images:resh", { root }))
    assert.same({}, complete.proposals("nothing.at.all", { root }))
  end)

  it("follows chains of calls and indices, and calls nothing", function()
    local root = { x = pg.zeros { 2, 3 }, pg = pg, ops = pg.ops, batch = { images = pg.zeros { 2 } },
      f = function() error "called" end }
    local function last(line)
      local before, word = line:match "^(.-)([%w_%.:]*)$"
      return complete.proposals(word, { root }, { before = before })
    end
    for _, line in ipairs { "x:narrow(1, 2, 1):cums", "print(x[1]:cums", "y = x[{ 1, {2, 3} }]:t():cums",
      "pg.zeros(3, 4):cums", "pg.zeros { 2 }:cums", "ops.exp(x:sum(1)):cums", "(x):cums",
      "batch.images:reshape({ 2 }):cums", "a = 1 + x:to 'float64':cums", "x.T:cums" } do
      local found = last(line)
      assert.equal(1, #found, line)
      assert.matches(":cumsum$", found[1])
    end
    for _, line in ipairs { "f():cums", "x:item():cums", "x:cumm():su", "):cums", "x):cums", "f(x:cums):cums" } do
      assert.same({}, last(line), line)
    end
  end)

  it("finds annotations", function()
    assert.matches("^stop.gradient_angle%(.*The paper's", help.text("stop.gradient_angle", { { stop = pg.stop } }))
    assert.matches("^stop.gradient_angle%(.*The paper's trigger", help.text "gradient_angle")
    assert.matches("did you mean", help.text "gradient_angel")
    local root = { x = pg.zeros { 2 }, ops = pg.ops, pg = pg, teacher = pg.models.vit { depth = 1, width = 8, heads = 2,
      patch = 8, image = 32 }, run = help.documented "console/control.lua", stop = pg.stop }
    for name, said in pairs {
      ["x:narrow"] = "^x:narrow%(dim, start, length%)    %(lua/perigee/core/ops/view.lua:%d+%)\n  `length` entries",
      narrow = "^x:narrow%(", sort = "^x:sort%(", concat = "^ops.concat%(list, dim%)",
      ["ops.exp"] = "^ops.exp.*one element",
      ["teacher.features"] = "Patch tokens after the final norm", teacher = "\n  features%s+Patch tokens",
      ["run:pause"] = "^run:pause%(%).*Stands still", run = "\n  pause%s+Stands still", ["pg.zeros"] = "pg.zeros",
      ["pg.models.sit_xl_2"] = "SiT %(Ma et al", stop = "\n  at_step%s+Ends the stage", pg = "New tensors\n    arange",
      ops = "Sums, means and extremes.-\n    .*argmax", tensor = "\n    .*narrow, permute",
    } do assert.matches(said, help.text(name, { root })) end
    for _, name in ipairs { "ops", "tensor" } do
      assert.is_nil(help.text(name, { root }):find("adamw", 1, true))
      assert.is_nil(help.text(name, { root }):find("_backward", 1, true))
    end
    assert.is_nil(help.text("stop.custom", { root }):find("source.custom", 1, true))
  end)

  it("prints values", function()
    assert.equal("{ 1, 2, x = \"y\" }", render.value { 1, 2, x = "y" })
    assert.equal("3\tfloat32 [2] on cpu\n[0, 0]", render.values({ 3, pg.zeros { 2 } }, 2))
    local loop = {}
    loop.self = loop
    assert.equal("{ self = { ... } }", render.value(loop))
    assert.equal("", render.values({}, 0))
  end)
end)

describe("policies as source", function()
  local function custom(...) return policy.make("custom", ...) end

  it("are written and read back", function()
    local stop, signal = pg.stop, pg.signal
    local own = compiled([[custom { needs = { signal.loss { "features" } }, name = "mine",
      function(event, state)
        local n = (state.n or 0) + 1
        return n >= 2 and event.features < 0.1, { n = n }
      end }]], { custom = custom, signal = signal })()
    local before = stop.any(stop.gradient_angle { block = 2, images = 8, from = 4, every = 2 },
      stop.all(own, stop.at_step(3)))
    local text = policy.write(before)
    local after = policy.read(text)
    assert.equal(text, policy.write(after))
    local state = after:initial()
    for _, event in ipairs { { step = 1, features = 1 }, { step = 2, features = 0.01 }, { step = 3, features = 1 } } do
      local finished
      finished, state = after:decide(event, state)
      assert.equal(event.step == 3, finished)
    end
    local recipes_own = stop.custom { function() return false end }
    assert.equal("recipe_finish", policy.write(recipes_own, recipes_own))
    assert.has_error(function() policy.write(recipes_own) end)
  end)

  it("keep nothing but their state, which is small", function()
    local function message_of(body)
      local told
      policy.report = function(text) told = text end
      local stop = compiled(("custom { function(event, state) %s end }"):format(body), { custom = custom })()
      stop:decide({ step = 1 }, {})
      return told
    end
    assert.matches("math is read%-only", message_of "math.kept = 1 return false")
    assert.matches("expected a table, got a userdata", message_of "table.insert(math, 1) return false")
    assert.matches("cannot set the global 'math'", message_of "math = {} return false")
    assert.matches("more than the 65536 bytes", message_of "return false, { s = ('x'):rep(70000) }")
    assert.matches("more than the 65536 bytes", message_of
      "local t = {} for k = 1, 1e5 do t[k] = k end return false, t")
    assert.matches("is a number; expected a text", select(2, pcall(policy.read, 3)))
    assert.matches("a policy's source fails: .*ended after",
      select(2, pcall(policy.read, "(function() while true do end end)()")))
    assert.has_error(function() pg.stop.custom { function() return false end, name = "a\255" } end)
    assert.has_error(function() pg.stop.custom { function() return false end, name = "a\27[2J" } end)
  end)

  it("tell of few failures, and shortly", function()
    local told = {}
    policy.report = function(text) told[#told + 1] = text end
    local stop = compiled("custom { function(event) error(event.step .. ('x'):rep(1e5)) end }", { custom = custom })()
    for step = 1, 100 do stop:decide({ step = step }, {}) end
    assert.equal(20, #told)
    for _, text in ipairs(told) do assert.is_true(#text < 1100) end
    assert.matches("further failures are not told$", told[20])
  end)

  it("refuse what they could not keep, and survive their own failures", function()
    local environment = { custom = custom }
    local function message(text) return select(2, pcall(compiled(text, environment))) end
    assert.matches("captures 'limit'",
      message "local limit = 1 return custom { function(e) return e.step > limit end }")
    assert.matches("global 'threshold'", message "return custom { function(e) return e.step > threshold end }")
    local told
    policy.report = function(text) told = text end
    for _, body in ipairs { "while true do end", "error 'no'", "return true, 3", "return false, { x = 1 / 0 }" } do
      told = nil
      local stop = compiled(("custom { function() %s end }"):format(body), environment)()
      local finished, state = stop:decide({ step = 1 }, { kept = 1 })
      assert.is_false(finished)
      assert.same({ kept = 1 }, state)
      assert.is_string(told)
    end
  end)
end)

-- ---- a run ------------------------------------------------------------------------------------------------------

local quote = require("tests.lua.tiny").quote
local environment = ("PERIGEE_HOME=%s OMP_NUM_THREADS=1"):format(quote(home))

--- A trainer in the background; its folder, once its console is open.
local function trainer(folder, arguments)
  os.execute(("PERIGEE_CACHE=%s %s %s train %s --runs %s %s >%s 2>&1 & echo $! >%s"):format(quote(folder
    .. "/cache"), environment,
    quote(program), quote(recipe), quote(folder), arguments, quote(folder .. "/log"), quote(folder .. "/pid")))
  for _ = 1, 600 do
    if files.kind(folder .. "/tiny/console.sock") then return folder .. "/tiny" end
    os.execute "sleep 0.1"
  end
  error("no console: " .. files.read(folder .. "/log"))
end

local function wait_for_end(folder)
  local pid = quote(folder .. "/pid")
  os.execute(("for k in $(seq 1200); do kill -0 $(cat %s) 2>/dev/null || break; sleep 0.1; done"):format(pid))
end

local function stop(folder)
  if not files.kind(folder .. "/pid") then return end
  os.execute(("kill $(cat %s) 2>/dev/null"):format(quote(folder .. "/pid")))
  wait_for_end(folder)
end

local function final_checkpoint(folder)
  local checkpoint = require "perigee.record.checkpoint"
  local steps = checkpoint.list(folder)
  return files.read(checkpoint.path(folder, steps[#steps])), steps[#steps]
end

describe("a console in a running trainer", function()
  after_each(function() stop(in_folder()) end)

  it("does all that its page shows", function()
    local run = trainer(in_folder(), "--align 1000000 --total 2000000 --checkpoint 0")
    local console = client.connect(run)
    local function answer(text) return console:ask { eval = text } end
    local function value(text)
      local given = answer(text)
      assert.is_nil(given.error, given.error)
      return given.value
    end
    assert.equal("align", value "run.stage.name")
    assert.is_true(tonumber(value "run.step") > 0)
    value "run.optim.lr = schedule.linear { from = 1e-4, to = 0, begin = 100000000, finish = 200000000 }"
    assert.equal("0.0001", value "run.optim.lr")
    assert.matches("schedule.linear: option 'finish' is missing",
      answer("run.optim.lr = schedule.linear { from = 1, to = 0 }").error)
    value "run.optim.lr = 5e-5"
    assert.equal("5e-05", value "run.optim.lr")
    value "run.stage.losses.attention.weight = 0.25"
    assert.equal("0.25", value "run.stage.losses.attention.weight")
    value "run.stage.finish = stop.gradient_angle { block = 1, images = 8, from = 10000000, every = 10 }"
    assert.matches("gradient_angle", value "run.stage.finish")
    value [[run.stage.finish = stop.any(run.stage.finish, stop.custom { needs = { signal.loss { "features" } },
      function(event, state)
        local best = math.min(state.best or 1000, event.features)
        return event.step > 1e9, { best = best }
      end })]]
    assert.matches("any", value "run.stage.finish")
    assert.matches("^run tiny at step %d+, stage align$", value "run") -- by its folder's name
    local step = value("run:pause()"):match "^paused at step (%d+); run:resume%(%) continues$"
    assert.equal(step, value "run.step")
    assert.equal(step, value "run.step")
    assert.equal(("run tiny at step %s, stage align, paused"):format(step), value "run")
    assert.matches("it is paused already", value "run:pause()")
    value [[name = "student.blocks.1.mlp.hidden.weight"; before = run:parameter(name); run:set(name, before * 2)]]
    assert.equal("0", value "(run:parameter(name) - before * 2):sum():item()")
    assert.equal("float32", value "student.blocks[1].mlp.hidden.weight.dtype")
    for _, walk in ipairs { "ipairs(before)", "unpack(before)" } do
      assert.matches("of a tensor %[%d+,%d+%]: write .*x:unbind%(%)", answer(walk).error)
    end
    assert.matches("samples/step%-%d+%.png$", value "run:sample { count = 4 }")
    assert.is_truthy(files.kind((value "run:checkpoint()")))
    assert.equal("continues after step " .. step, value "run:resume()")
    assert.matches("it is not paused", value "run:resume()")
    value "run:finish_stage()"
    for _ = 1, 100 do
      if value "run.stage.name" == "free" then break end
    end
    assert.equal("free", value "run.stage.name")
    -- one line writes little to the log, and stands still once
    assert.matches("may change a run 16 times", answer "for k = 1, 1e6 do run.ema = 0.9 end".error)
    assert.matches("may ask for one checkpoint", answer "while true do run:checkpoint() end".error)
    assert.matches("draws at most 256", answer "run:sample { count = 1e6 }".error)
    assert.equal("the line is not UTF-8", answer "'\255'".error)
    local C = require("perigee.core.ffi").C
    for _, text in ipairs { '{"id":1e999,"eval":"1"}', '{"id":[1],"eval":"1"}', '{"id":{},"complete":"run."}' } do
      C.pg_console_write(console.handle, text, #text)
    end
    value "loop = {} m = setmetatable({}, loop) loop.__index = m"
    assert.same({}, console:ask { complete = "m.x" }.proposals)
    value "setmetatable(m, { names = function() while true do end end })"
    assert.same({}, console:ask { complete = "m.x" }.proposals)
    -- printing, unfinished text, errors
    assert.equal("1\t2\n", answer "print(1, 2)".output)
    assert.is_true(answer "for i = 1, 2 do".unfinished)
    assert.matches("did you mean \"step\"", answer "run.stepp".error)
    for _, text in ipairs { "io", "os", "ffi", "debug", "jit", "require", "load", "string.dump",
      "coroutine", "package" } do
      local given = answer(text)
      assert.is_true(given.error ~= nil or given.value == "", text)
    end
    local proposals = console:ask { complete = "run.st" }.proposals
    assert.same({ "run.stage", "run.step" }, { proposals[1], proposals[2] })
    console:close()
    local function tell(text)
      local pipe = io.popen(("%s %s tell %s %s"):format(environment, quote(program), quote(run), quote(text)))
      local told = pipe:read "*a"
      pipe:close()
      return told
    end
    assert.equal("free\n", tell "run.stage.name")
    assert.equal("", tell "run.stage.finish = stop.after(1e7)")
    local note = tell "run.stage.finish = stop.any(run.stage.finish, stop.at_step(1))"
    assert.matches("^note: at_step%(1%) is past, %d+ steps are done: stage free ends after its next step\n$", note)
    wait_for_end(in_folder())
    local log = files.read(in_folder "log") -- what the trainer's own terminal shows
    assert.matches("\nstep %d+: changed by hand: run%.optim%.lr = 5e%-5\n", log)
    assert.matches("\nstep %d+: changed by hand: run%.stage%.finish = stop%.any%(run%.stage%.finish, "
      .. "stop%.custom { needs = { signal%.loss { \"features\" } }, %.%.%.\n", log)
    assert.matches("\nstep %d+: changed by hand: run:finish_stage%(%)\n", log)
    assert.is_truthy(log:find(note, 1, true))
    assert.matches("\nstep %d+: stage free ends %(step 1 reached%)\n", log)
    assert.is_nil(files.kind(run .. "/console.sock"))
    local paths = {}
    for line in files.read(run .. "/events.jsonl"):gmatch "[^\n]+" do
      local event = json.decode(line)
      if event.event == "change" and event.path ~= "ema" then
        paths[#paths + 1] = event.path
        assert.is_string(event.text)
        assert.is_not_nil(event.before)
        assert.is_not_nil(event.after)
      end
    end
    assert.same({ "optim.lr", "optim.lr", "stage.losses.attention.weight", "stage.finish", "stage.finish",
                  "tensor student.blocks.1.mlp.hidden.weight", "finish_stage", "stage.finish", "stage.finish" }, paths)
  end)

  it("shows and changes what the run's optimiser has", function()
    local run = trainer(in_folder(), "--align 1000000 --total 2000000 --checkpoint 0 --optim lion")
    local console = client.connect(run)
    local function ask(text) return console:ask { eval = text } end
    assert.equal("lion, betas 0.9 0.99, clip 1, decay 0, lr 0.001, warmup 0", ask("run.optim").value)
    assert.is_nil(ask("run.optim.betas = { 0.95, 0.98 }").error)
    assert.equal("0.98", ask("run.optim.betas[2]").value)
    assert.matches("run.optim.betas is a table { 0.9, 1 }; expected 2 numbers from 0 to below 1",
      ask("run.optim.betas = { 0.9, 1 }").error)
    assert.matches("epsilon", ask("run.optim.epsilon = 1e-8").error)
    assert.matches("cooldown", ask("run.optim.cooldown = { 10, 20 }").error)
    assert.is_true(#ask("run:parameters 'optimizer.m.student'").value > 0)
    assert.equal("{}", ask("run:parameters 'optimizer.v.student'").value)
    console:close()
  end)

  it("keeps little memory for a client, and writes little of the log for it", function()
    local run = trainer(in_folder(), "--align 1000000 --total 2000000 --checkpoint 0")
    local console, other = client.connect(run), client.connect(run)
    local function ask(text, who) return (who or console):ask { eval = text, limit = 20 } end
    assert.is_nil(ask("kept = 1", other).error)
    local answer
    for k = 1, 5 do
      answer = ask(("big%d = ('x'):rep(2^24) .. %d"):format(k, k))
      if answer.error then break end
    end
    assert.matches("variables took %d+ MiB, more than it may keep between lines: they are gone", answer.error)
    assert.matches("undefined variable 'big1'", ask("big1").error)
    assert.equal("1", ask("kept", other).value)
    assert.matches("a line of 70000 bytes", ask(("x"):rep(70000)).error)
    assert.same({}, console:ask { complete = "run." .. ("x"):rep(5000) }.proposals)

    local before, lines = files.size(run .. "/events.jsonl"), 0
    local change = "for k = 1, 16 do run.optim.lr = 1e-3 + k * 1e-6 end -- " .. ("x"):rep(60000)
    repeat
      answer, lines = ask(change), lines + 1
    until answer.error or lines == 9
    assert.matches("written too much to the log: 1024 KiB at once, then 16 KiB a second; wait %d+ s", answer.error)
    local written = files.size(run .. "/events.jsonl") - before
    assert.is_true(written > 2 ^ 20 and written < 3 * 2 ^ 20, written)
    assert.is_nil(ask("run.optim.lr = 1e-3", other).error)
    console:close()
    other:close()
  end)

  it("leaves a run as it was after 1,000 hostile inputs by ten clients", function()
    local quiet, busy = in_folder "quiet", in_folder "busy"
    files.make_folder(quiet)
    files.make_folder(busy)
    local arguments = "--align 1500 --total 3000 --checkpoint 0"
    trainer(quiet, arguments)
    wait_for_end(quiet)
    local run = trainer(busy, arguments)
    local hostile = {
      "while true do end", "while true do pcall(function() while true do end end) end",
      "repeat pcall(error) until false", "local function f() return 1 + f() end f()", "('x'):rep(1e10)",
      "local t = {} while true do t[#t + 1] = ('x'):rep(1e5) .. #t end",
      "setmetatable(_G, nil)", "setmetatable(_G, {})", "rawset(run, 'step', 1)", "run.step = -1", "run.stage = nil",
      "run.stage.losses = {}", "pg.zeros = nil", "pg.ops.matmul = nil", "string.format = nil", "math.floor = 3",
      "getmetatable('').__index = nil", "getmetatable(run).__index = nil", "getmetatable(pg.zeros{2}).__index = nil",
      "(''):dump()", "loadstring('\\27LJ\\2')()",
      "pg.zeros{2}.handle", "pg.zeros{2}.shape[1]", "pg.zeros{2}:free()", "pg.zeros{2}:copy_(pg.ones{2})",
      "pg.zeros{1e6, 1e6}",
      "student.blocks[1] = nil", "student:materialise{}", "student.blocks[1].mlp.hidden.weight:copy_(pg.zeros{1})",
      "run:set('student.blocks.1.mlp.hidden.weight', pg.zeros{3})", "run:set('nothing', 3)", "run:set()", "run.set(1)",
      "run.optim.lr = 0/0", "run.optim.lr = {}", "run.optim.lr = -1", "run.optim.betas = { 2, 3 }", "run.ema = 1",
      "run.stage.losses.denoise.weight = 'x'", "run.stage.finish = nil", "run.stage.finish = 3",
      "run.stage.finish = stop.custom { 3 }", "run.stage.finish = stop.gradient_angle { block = 99 }",
      "run:sample { count = -1 }", "run:sample { nothing = 1 }", "error(nil)", "error({})", "error()",
      "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
      "setmetatable({}, { __tostring = function() error 'x' end })", "return 1 +", "]]", ("("):rep(5000),
      ("x = "):rep(3000), "\0\1\2\255",
      "local s = ('a'):rep(30000) return s:find('.-.-.-.-b')", "table.concat(setmetatable({}, { __index = error }))",
      "for k, v in pairs(run) do pcall(v) end", "pg.tensor({ { 1 }, { 1, 2 } })",
      "pg.grad(function() while true do end end, { pg.ones{1} })",
      "_G = nil", "pairs = nil; print = nil; error = nil", "return run, pg, student, stop, signal",
      "print(('x'):rep(1e6))", "xpcall(error, function() while true do end end)", "unpack({}, 1, 1e8)", "select(-1)",
      "('x'):gsub('', ('y'):rep(1e6))",
    }
    local clients = {}
    for k = 1, 10 do clients[k] = client.connect(run) end
    local count, malformed = 0, { "", "{", "[]", "null", "1", '"x"', "{}", '{"eval":3}', '{"complete":[]}',
      ("["):rep(500), "\255\254" }
    local C = require("perigee.core.ffi").C
    while count < 1000 do
      count = count + 1
      local k = count % 10 + 1
      if count % 9 == 0 then
        local text = malformed[count / 9 % #malformed + 1]
        C.pg_console_write(clients[k].handle, text, #text) -- its answer, without a number, is passed over
      elseif count % 97 == 0 then
        local text = json.encode { eval = "return", id = 0 }
        C.pg_console_write(clients[k].handle, text, #text)
        clients[k]:close() -- without waiting
        clients[k] = client.connect(run)
      else
        local answer = clients[k]:ask { eval = hostile[count % #hostile + 1], limit = 0.02 }
        assert.is_truthy(answer.error or answer.value or answer.unfinished)
      end
    end
    assert.matches("^%d+$", clients[3]:ask { eval = "run.step" }.value)
    for k = 1, 10 do clients[k]:close() end
    wait_for_end(busy)
    local log = files.read(busy .. "/log")
    assert.is_nil(log:find("error", 1, true), log)
    assert.is_true(final_checkpoint(quiet .. "/tiny") == final_checkpoint(run))
    assert.is_nil(files.read(run .. "/events.jsonl"):find('"change"', 1, true))
  end)
end)

describe("a console that is left", function()
  it("is forgotten, with the tensors it kept", function()
    local ffi = require "ffi"
    local core = require "perigee.core.ffi"
    local loaded = require("perigee.recipe.load").load(recipe, { values = { align = 1, total = 2 } }).value
    local run = require("perigee.train.run").new(loaded, { folder = in_folder() })
    run.step = 0
    files.make_folder(in_folder())
    local server = require("perigee.console.server").open(run, function() end)
    local function attach()
      local link, text = ffi.new "pg_console_link *[1]", json.encode { eval = "kept = pg.zeros(2^18)" }
      core.check(core.C.pg_console_connect(link, in_folder "console.sock"))
      core.check(core.C.pg_console_write(link[0], text, #text))
      for _ = 1, 3 do server:poll(100) end
      core.C.pg_console_disconnect(link[0])
      server:poll(100)
    end
    attach()
    local function held()
      for _ = 1, 3 do collectgarbage() end
      return tonumber(core.C.pg_memory_now(core.C.PG_CPU, -1)) / 2 ^ 20
    end
    local before = held()
    for _ = 1, 10 do attach() end
    assert.is_true(held() < before + 0.5)
    server:close()
    run:free()
  end)
end)

describe("a run's folder from elsewhere", function()
  it("has a config.json of whose fields wrong types are one line each", function()
    local config = require "perigee.record.config"
    files.make_folder(in_folder())
    for text, expected in pairs {
      ["[1]"] = "is not a run's: expected an object", ['{"options":null}'] = "'options' is null; expected an object",
      ['{"batch":"4"}'] = "'batch' is a string; expected a number",
      ['{"stages":{"a":1}}'] = "'stages' is an object; expected a list of objects",
      ['{"stages":[3]}'] = "'stages[1]' is a number; expected an object",
      ['{"stages":[{"name":[]}]}'] = "'stages[1].name' is a list; expected a string",
      ['{"stages":[{"name":"a","signals":[{"name":"b","settings":{"from":[1]}}]}]}'] =
        "'stages[1].signals[1].settings.from' is a list; expected a number",
      ['{"stages":[{"signals":[{"settings":3}]}]}'] =
        "'stages[1].signals[1].settings' is a number; expected an object",
      ['{"command":{"recipe":[1]}}'] = "'command.recipe' is a list; expected an object",
      ['{"command":{"command":{"threads":"all"}}}'] = "'command.command.threads' is a string; expected a number",
    } do
      files.write(in_folder "config.json", text)
      local message = select(2, pcall(config.read, in_folder()))
      assert.is_truthy(message:find(in_folder "config.json", 1, true) and message:find(expected, 1, true), message)
    end
    files.write(in_folder "config.json", '{"stages":[],"command":{},"batch":4,"options":{}}')
    assert.equal(4, config.read(in_folder()).batch)
  end)

  it("steers no terminal by what its log or a file says, in commands and in errors", function()
    local clear = "\27[2J"
    files.make_folder(in_folder())
    files.write(in_folder "config.json", "{}")
    files.write(in_folder "events.jsonl", table.concat { json.encode { event = "stage", stage = clear, step = 0 }, "\n",
      json.encode { event = "step", step = 1, losses = { [clear] = 1 } }, "\n",
      json.encode { event = "end", step = 2, reason = clear }, "\n" })
    pg.save(in_folder "t.safetensors", { ["a" .. clear] = pg.zeros { 2 }, ["b\194\155"] = pg.zeros { 2 } })
    for _, command in ipairs { "compare " .. quote(in_folder()), "compare --list " .. quote(in_folder()),
      "replay " .. quote(in_folder()) .. " --stop 'stop.at_step(1)'", "inspect " .. quote(in_folder "t.safetensors"),
      "compare " .. quote(in_folder(clear)) } do
      local _, output = tiny.perigee(command)
      assert.is_nil(output:find("\27", 1, true) or output:find("\194\155", 1, true), output)
      assert.is_truthy(output:find("\\x1B[2J", 1, true), output)
    end
  end)

  it("is named before --resume executes its recipe and log, if they are another user's", function()
    local source, log = in_folder "recipe.lua", in_folder "owned/events.jsonl"
    files.make_folder(in_folder "owned")
    files.write(source, 'return require("tests.lua.tiny").recipe { name = "owned" }\n')
    files.write(log, "")
    if os.execute(("chown 1 %s %s 2>/dev/null"):format(quote(source), quote(log))) ~= 0 then
      return pending "giving files to another user needs root"
    end
    local _, output = tiny.perigee(("train %s --resume --name owned --steps 1 --runs %s"):format(quote(source),
      quote(in_folder())))
    for _, path in ipairs { source, log } do
      assert.is_truthy(output:find("note: " .. path .. " belongs to another user (number 1)", 1, true), output)
    end
  end)

  it("has lines of a log that are left out with their reason", function()
    local Events = require "perigee.record.events"
    files.make_folder(in_folder())
    files.write(in_folder "events.jsonl", '{"event":"step","step":"7"}\n{"event":"change","step":1,"text":2}\n[3]\n'
      .. '{"event":"step","step":8}\n{"event":"stage","stage":{}}\n')
    local told = {}
    local list = Events.read(in_folder(), function(message) told[#told + 1] = message:match "line .*" end)
    assert.same({ { event = "step", step = 8 } }, list)
    assert.same({ "line 1 is left out: its 'step' is a string; expected a number",
      "line 2 is left out: its 'text' is a number; expected a string", "line 3 is left out: it is not an event",
      "line 5 is left out: its 'stage' is a table; expected a string" }, told)
  end)

  it("does not steer a terminal, is named if it is another user's, and has no links for locks", function()
    local printable, restore = require "perigee.base.printable", require "perigee.sampling.restore"
    local owner = require "perigee.io.owner"
    assert.equal("a\\x1B[2Jb\n\t\\x00é\\xC2\\x9B", printable.text "a\27[2Jb\n\t\0é\194\155")
    for text, expected in pairs { ["aé€😀"] = true, ["\255"] = false, ["\192\128"] = false, ["\237\160\128"] = false,
      ["\226\130"] = false } do assert.equal(expected, printable.is_utf8(text)) end
    files.write(in_folder "recipe.lua", "")
    assert.is_nil(owner.note(in_folder "recipe.lua"))
    assert.matches("recipe.lua belongs to another user %(number %d+%), and what it holds is executed$",
      owner.note(in_folder "recipe.lua", 4294967294))
    files.write(in_folder "config.json", '{"options":3}')
    assert.matches("config.json: 'options' is a number; expected an object",
      select(2, pcall(restore.recipe, in_folder())))
    files.write(in_folder "precious", "text")
    os.execute(("ln -s precious '%s'"):format(in_folder "lock"))
    assert.is_false((pcall(files.lock, in_folder "lock")))
    os.execute(("ln -s precious '%s'"):format(in_folder "samples.npz.part")) -- of a cache's file too
    assert.is_false((pcall(files.resume, in_folder "samples.npz")))
    os.execute(("ln -s precious '%s'"):format(in_folder "log"))
    assert.is_false((pcall(files.append, in_folder "log")))
    os.execute(("mkfifo '%s'"):format(in_folder "pipe"))
    assert.is_false((pcall(files.append, in_folder "pipe")))
    assert.equal("text", files.read(in_folder "precious"))
  end)
end)

describe("a change", function()
  it("that cannot be logged is not made", function()
    local changes = require "perigee.train.changes"
    local loaded = require("perigee.recipe.load").load(recipe, { values = { align = 1, total = 2 } }).value
    local run = require("perigee.train.run").new(loaded, {})
    rawset(run, "log_first", function() error "the disk is full" end)
    for path, value in pairs { ["optim.lr"] = 0.5, ema = 0.1, ["stage.losses.denoise.weight"] = 3,
      ["stage.finish"] = "stop.at_step(7)" } do
      assert.has_error(function() changes.make(run, path, value, "x") end)
    end
    files.make_folder(in_folder())
    files.write(in_folder "events.jsonl", '{"event":"change","step":1}\n')
    rawset(run, "folder", in_folder())
    assert.matches("events.jsonl: a change lacks its number", select(2, pcall(changes.pending, run)))
    assert.same({ 1e-3, 0.9, 1, "at_step(1)" },
      { run.optim.lr, run.ema, run.stage.losses.denoise.weight, run.stage.finish.text })
    run:free()
  end)
end)

describe("a run whose policy was swapped", function()
  local changes = require "perigee.train.changes"
  local train = require("perigee.train").train

  --- Trains the tiny recipe; `at[step](run)` acts after that step. If it says "kill", the run ends before it keeps
  --- another step: the error is no text, so nothing is saved.
  local function go(folder, at, resume)
    local killed = false
    local loaded = require("perigee.recipe.load").load(recipe,
      { values = { align = 30, total = 40, checkpoint = 5 } }).value
    loaded.every.sample = 1
    local function act(run) killed = at[run.step] and at[run.step](run) == "kill" end
    local function console()
      return { between_steps = function() if killed then error {} end end, close = function() end }
    end
    local run = train(loaded, { folder = folder, quiet = true, resume = resume, sample = act, console = console })
    run:free()
  end

  it("is the same after it was killed and resumed", function()
    local text = [[stop.custom { needs = { signal.loss { "denoise" } },
      function(event, state)
        return (state.n or 0) >= 12, { n = (state.n or 0) + 1, sum = (state.sum or 0) + event.denoise }
      end }]]
    local function swap(run)
      changes.make(run, "stage.finish", text, "the policy")
      changes.make(run, "optim.lr", 5e-4, "the rate")
    end
    local function twice(run)
      changes.make(run, "stage.losses.attention.weight", 0.1, "the weight")
      changes.set(run, "student.blocks.1.mlp.hidden.bias", pg.ones { 128 }, "the bias")
    end
    local whole, killed = in_folder "whole", in_folder "killed"
    go(whole, { [7] = swap, [11] = twice })
    local function kill() return "kill" end
    for _, first_life in ipairs { 9, 13, 17 } do -- checkpoints at 5, 10 and 15: changes before and after them
      files.remove_tree(killed)
      assert.has_error(function() go(killed, { [7] = swap, [11] = twice, [first_life] = kill }) end)
      if first_life == 9 then -- and again, before the changes were made again
        assert.has_error(function() go(killed, { [6] = kill }, true) end)
        go(killed, { [11] = twice }, true)
      else
        go(killed, {}, true)
      end
      local expected, last = final_checkpoint(whole)
      local given, step = final_checkpoint(killed)
      assert.equal(last, step)
      assert.is_true(expected == given, ("killed after step %d"):format(first_life))
    end
  end)
end)

-- ---- a person ---------------------------------------------------------------------------------------------------

describe("at a terminal", function()
  after_each(function() stop(in_folder()) end)

  local function environment_of()
    return { PERIGEE_HOME = home, HOME = in_folder(), XDG_STATE_HOME = in_folder "state", OMP_NUM_THREADS = "1",
             TERM = "xterm", PERIGEE_CACHE = in_folder "cache" }
  end

  it("the REPL has history, completion, several lines and Ctrl-C", function()
    local screen = terminal.start({ program, "repl" }, environment_of())
    screen:expect "perigee> "
    screen:type "1 + 41\n"
    screen:expect "42"
    screen:expect "perigee> "
    screen:type "for i = 1, 2 do\n"
    screen:expect "> "
    screen:type "print('line', i)\nend\n"
    screen:expect "line\t2"
    screen:expect "perigee> "
    screen:type "pg.stop.gradient_a\t\n"
    screen:expect "function (init.lua:"
    screen:expect "perigee> "
    screen:type "pg.zeros(3):cums\t(1):sum():item()\n"
    screen:expect "\n0\r\n"
    screen:expect "perigee> "
    screen:type "while true do end\n"
    os.execute "sleep 0.5"
    screen:type "\3"
    screen:expect "interrupted"
    screen:expect "perigee> "
    screen:type "half a line\3"
    screen:expect "perigee> "
    screen:type "error 'mine'\n"
    screen:expect "mine"
    screen:expect "perigee> "
    screen:type "pg.zeros { 2, 2 }\n"
    screen:expect "float32 [2,2] on cpu"
    screen:expect "perigee> "
    screen:type ":quit\n"
    assert.equal(0, screen:close())

    screen = terminal.start({ program, "repl" }, environment_of())
    screen:expect "perigee> "
    screen:type "\16\16\n" -- Ctrl-P: the line before :quit
    screen:expect "float32 [2,2] on cpu"
    screen:expect "perigee> "
    screen:leave()
    assert.equal(0, screen:close())
  end)

  it("the REPL has a recipe's parts at hand", function()
    local screen = terminal.start({ program, "repl", recipe }, environment_of())
    screen:expect "perigee> "
    local function line(text, expected)
      screen:type(text .. "\n")
      screen:expect "\n"
      screen:expect(expected)
      screen:expect "perigee> "
    end
    line("batch = run:batch()", "")
    line("batch.images", "uint8 [4,32,32,3]")
    line("run:loss(batch)", "total = ")
    line("run:train()", "denoise = ")
    line("run.step", "1")
    line("run:gradient { loss = 'features', of = 'block 1' }", "float32 [4,16,32]")
    line("run:gradient { loss = 'denoise', of = 'student.blocks.1.mlp.hidden.weight' }", "float32 [128,32]")
    line(("run:picture { path = %q }"):format(in_folder "batch.png"), "batch.png")
    line(("run:attention { block = 2, path = %q }"):format(in_folder "attention.png"), "attention.png")
    line("student", "parameters")
    line(":reload", "at step 0")
    screen:leave()
    assert.equal(0, screen:close())
    assert.same({ 64, 64, 3 }, pg.load_png(in_folder "batch.png").shape)
    assert.same({ 256, 5 * 256 + 4 * 8, 3 }, pg.load_png(in_folder "attention.png").shape)
  end)

  it("attach edits, completes and asks for more lines", function()
    local run = trainer(in_folder(), "--align 1000000 --total 2000000 --checkpoint 0")
    local screen = terminal.start({ program, "attach", run }, environment_of())
    screen:expect "tiny> "
    screen:type "run.stage.na\t\n"
    screen:expect "align"
    screen:expect "tiny> "
    screen:type "while true do\nend\n"
    screen:expect "ended after 1 s"
    screen:expect "tiny> "
    screen:type "run.stage.finish = stop.custom {\n"
    screen:expect "> "
    screen:type "function(event) return event.step > 1e9 end }\n"
    screen:expect "tiny> "
    screen:type "run.stage.finish\n"
    screen:expect "custom\r\n"
    screen:expect "tiny> "
    screen:leave()
    assert.equal(0, screen:close())
  end)
end)
