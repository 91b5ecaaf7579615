local message_of = require("tests.lua.expect").message_of
local nearest = require "perigee.base.nearest"
local options = require "perigee.base.options"
local recipes = require "perigee.recipe.load"

local home = debug.getinfo(1, "S").source:match "^@(.*)/tests/lua/[^/]*$" or "."
local program = (os.getenv "PERIGEE_BUILD" or home .. "/build") .. "/runtime/perigee"

local quote = require("tests.lua.tiny").quote
local in_folder = dofile(home .. "/tests/lua/folder.lua")(before_each, after_each)
local multiplies_bfloat16 = require("perigee.core.device").cpu_multiplies_bfloat16

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function write(text)
  local path = os.tmpname()
  os.rename(path, path .. ".lua")
  path = path .. ".lua"
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- Runs the program: exit status, what it printed, what it printed as errors.
local function perigee(arguments, environment)
  local out, errors = os.tmpname(), os.tmpname()
  local status = os.execute(("PERIGEE_HOME=%s %s %s %s >%s 2>%s"):format(
    quote(home), environment or "", quote(program), arguments, out, errors))
  local printed, complained = read(out), read(errors)
  os.remove(out)
  os.remove(errors)
  return status / 256, printed, complained
end

describe("nearest", function()
  it("counts edits", function()
    assert.equal(0, nearest.distance("batch", "batch"))
    assert.equal(1, nearest.distance("batch", "bacth"))
    assert.equal(1, nearest.distance("batch", "batchs"))
    assert.equal(3, nearest.distance("kitten", "sitting"))
    assert.equal(5, nearest.distance("", "batch"))
    assert.equal(5, nearest.distance("batch", ""))
  end)

  it("finds what was meant, and nothing where nothing is near", function()
    local names = { "train", "sample", "plan", "show", "doctor" }
    assert.equal("train", nearest.find("trian", names))
    assert.equal("sample", nearest.find("smaple", names))
    assert.equal("doctor", nearest.find("doc", names))
    assert.equal("plan", nearest.find("PLAN", names))
    assert.is_nil(nearest.find("x", names))
    assert.is_nil(nearest.find("zebra", names))
  end)
end)

describe("options", function()
  local list = options.declare {
    { "data", "data/cifar10", "folder" },
    { name = "batch", type = "integer", default = 64, min = 1, max = 4096, help = "images a step" },
    { name = "rate", default = 1e-4, help = "learning rate" },
    { name = "flip", default = true, help = "mirror images" },
    { name = "fast", default = false, help = "be fast" },
    { name = "device", choices = { "cpu", "cuda" }, default = "cpu", help = "where" },
    { name = "drop_label", type = "number", help = "share" },
    { name = "stop", type = "list", help = "policies" },
    { name = "set", type = "pairs", help = "fields" },
  }
  local function parse(...) return options.values(list, (options.parse(list, { ... }))) end

  it("take their defaults", function()
    local values = parse()
    assert.equal("data/cifar10", values.data)
    assert.equal(64, values.batch)
    assert.is_true(values.flip)
    assert.is_false(values.fast)
    assert.is_nil(values.drop_label)
    assert.same({}, values.stop)
    assert.same({}, values.set)
  end)

  it("are given as --name value, --name=value, --flag and --no-flag", function()
    local values = parse("--batch", "32", "first", "--rate=2e-3", "--no-flip", "--fast", "second", "--drop-label", "-1",
                         "--set", "a.b=c=d", "--set=e=", "--stop", "x", "--stop", "y", "--device=cuda")
    assert.equal(32, values.batch)
    assert.equal(2e-3, values.rate)
    assert.is_false(values.flip)
    assert.is_true(values.fast)
    assert.equal(-1, values.drop_label)
    assert.same({ ["a.b"] = "c=d", e = "" }, values.set)
    assert.same({ "x", "y" }, values.stop)
    assert.equal("cuda", values.device)
    assert.equal("first", values[1])
    assert.equal("second", values[2])
    assert.is_nil(values[3])
  end)

  it("take the last of a repeated flag, and true or false as a boolean's value", function()
    local values = parse("--batch", "1", "--batch", "2", "--fast=yes", "--flip=false")
    assert.equal(2, values.batch)
    assert.is_true(values.fast)
    assert.is_false(values.flip)
  end)

  it("end at --", function()
    assert.equal("--batch", parse("--", "--batch")[1])
  end)

  it("are left alone after the positional arguments that `stop` counts", function()
    local given = options.parse(list, { "--fast", "script.lua", "--help", "--batch", "x" }, { stop = 1 })
    assert.is_true(given.fast)
    assert.is_nil(given.help)
    assert.same({ "script.lua", "--help", "--batch", "x" }, { unpack(given) })
  end)

  local mistakes = {
    { { "--bacth", "3" }, "unknown option --bacth; did you mean \"--batch\"?" },
    { { "--droplabel", "3" }, "unknown option --droplabel; did you mean \"--drop-label\"?" },
    { { "--zzz" }, "unknown option --zzz" },
    { { "-b", "3" }, "unknown option -b; options are written --name" },
    { { "--batch" }, "--batch needs a value" },
    { { "--batch", "--fast" }, "--batch needs a value" },
    { { "--batch", "many" }, "--batch: expected a number, got \"many\"" },
    { { "--batch", "1.5" }, "--batch: expected a whole number, got 1.5" },
    { { "--batch", "0" }, "--batch: 0 is too small, the least is 1" },
    { { "--batch", "9999" }, "--batch: 9999 is too big, the most is 4096" },
    { { "--rate", "nan" }, "--rate: expected a number, got \"nan\"" },
    { { "--device", "cud" }, "--device: \"cud\" is none of cpu, cuda; did you mean \"cuda\"?" },
    { { "--fast=perhaps" }, "--fast: expected true or false" },
    { { "--no-fast=1" }, "--no-fast takes no value" },
    { { "--set", "lonely" }, "--set: expected KEY=VALUE, got \"lonely\"" },
  }
  for _, case in ipairs(mistakes) do
    it("say what is wrong with " .. table.concat(case[1], " "), function()
      assert.equal(case[2], message_of(options.parse, list, case[1]))
    end)
  end

  it("may be required", function()
    local needed = options.declare { { name = "data", required = true, help = "the folder" } }
    assert.equal("--data is needed: the folder", message_of(options.values, needed, {}))
    assert.equal("x", options.values(needed, { data = "x" }).data)
  end)

  it("know their names", function()
    local message = message_of(function() return parse().bacth end)
    assert.matches("cli_spec.lua:%d+: no option is called \"bacth\"; did you mean \"batch\"%?", message)
  end)

  it("are declared by name or in a list, and checked", function()
    local declared = options.declare {
      zeta = { default = 1, help = "" }, alpha = { default = "x", help = "" }, { "first", 2, "" },
    }
    assert.same({ "first", "alpha", "zeta" }, { declared[1].name, declared[2].name, declared[3].name })
    assert.equal("number", declared[1].type)
    assert.equal("option batch: unknown key \"defualt\"; did you mean \"default\"?",
                 message_of(options.declare, { batch = { defualt = 3 } }))
    assert.equal("option batch is declared twice",
                 message_of(options.declare, { { "batch", 3 }, batch = { default = 3 } }))
    assert.matches("expected a table like", message_of(options.declare, { batch = 3 }))
    assert.equal("--batch: expected a whole number, got 2.5",
                 message_of(options.declare, { batch = { type = "integer", default = 2.5 } }))
    assert.matches("type \"int\" is none of", message_of(options.declare, { batch = { type = "int" } }))
  end)

  it("are listed by help", function()
    local text = options.help(list)
    assert.matches("  %-%-batch N +images a step %(default 64%)\n", text)
    assert.matches("  %-%-rate X +learning rate %(default 0.0001%)\n", text)
    assert.matches("  %-%-%[no%-%]flip +mirror images %(default yes%)\n", text)
    local switches = options.declare {
      { name = "console", default = true, help = "let others in", off = "don't let others in" },
      { name = "quiet", default = false, help = "print nothing" },
    }
    assert.equal("  --no-console  don't let others in\n  --quiet       print nothing\n", options.help(switches))
    assert.matches("  %-%-device cpu|cuda +where %(default cpu%)\n", text)
    assert.matches("  %-%-drop%-label X +share\n", text)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 120) end
  end)
end)

describe("a recipe's options", function()
  local source = [[
    local options = require("perigee.recipe.options").declare {
      batch = { default = 64, type = "integer", help = "images a step" },
      fast = { default = false, help = "be fast" },
      data = { default = "here", help = "folder" },
    }
    return { batch = options.batch, fast = options.fast, data = options.data }
  ]]
  local path
  setup(function() path = write(source) end)
  teardown(function() os.remove(path) end)
  local command = options.declare { { name = "steps", type = "integer", help = "steps" },
                                    { name = "set", type = "pairs", help = "options" } }
  local function load(...) return recipes.load(path, { command = command, arguments = { ... } }) end

  it("have their defaults outside of a command", function()
    assert.same({ batch = 64, fast = false, data = "here" }, dofile(path))
    assert.same({ batch = 64, fast = false, data = "here" }, recipes.load(path).value)
  end)

  it("are set by flags and by --set, beside the command's own", function()
    local loaded = load(path, "--batch", "8", "--fast", "--steps", "3", "--set", "data=there")
    assert.same({ batch = 8, fast = true, data = "there" }, loaded.value)
    assert.same({ batch = 8, fast = true, data = "there" }, loaded.values)
    assert.equal(3, loaded.given.steps)
    assert.equal(path, loaded.given[1])
  end)

  it("can be given back as they were resolved", function()
    assert.same({ batch = 2, fast = true, data = "d" },
                recipes.load(path, { values = { batch = 2, fast = true, data = "d" } }).value)
  end)

  it("belong to the file that is loaded, not to another recipe that it loads", function()
    local outer = write(([[
      local batch = require("perigee.recipe.options").declare { batch = { default = 1, help = "" } }.batch
      return { outer = batch, inner = dofile "%s".batch }
    ]]):format(path))
    assert.same({ outer = 5, inner = 64 }, recipes.load(outer, {
      arguments = { outer, "--batch", "5" }, command = command }).value)
    os.remove(outer)
  end)

  it("refuse what nobody declared", function()
    assert.equal("unknown option --bath; did you mean \"--batch\"?", message_of(load, path, "--bath", "3"))
    assert.matches("%-%-set bath: .* has no such option; did you mean \"batch\"%?",
                   message_of(load, path, "--set", "bath=3"))
    assert.equal("--batch: expected a whole number, got 1.5", message_of(load, path, "--set", "batch=1.5"))
  end)

  it("report mistakes at the recipe's own line", function()
    local cases = {
      { "return unknown_name", ":1: undefined variable \"unknown_name\"" },
      { "\nreturn tabel.concat({})", ":2: undefined variable \"tabel\"; did you mean \"table\"?" },
      { "\n\nglobal = 1", ":3: assignment to an undefined variable \"global\"; declare it with `local`" },
      { "return {", ":1: unexpected symbol near '<eof>'" },
      { "require('perigee.recipe.options').declare { x = { defualt = 1 } }",
        ":1: option x: unknown key \"defualt\"; did you mean \"default\"?" },
      { "local o = require('perigee.recipe.options').declare { batch = { default = 1 } }\nreturn o.bach",
        ":2: no option is called \"bach\"; did you mean \"batch\"?" },
    }
    for _, case in ipairs(cases) do
      local wrong = write(case[1])
      local message = message_of(recipes.load, wrong)
      assert.equal(wrong .. case[2], message)
      os.remove(wrong)
    end
    assert.equal("cannot read the recipe /nowhere.lua: No such file or directory",
                 message_of(recipes.load, "/nowhere.lua"))
  end)
end)

describe("the program", function()
  it("lists its commands, without loading the library", function()
    local status, printed = perigee "--help"
    assert.equal(0, status)
    assert.matches("usage: perigee COMMAND", printed)
    assert.matches("\n  doctor +%l", printed)
    assert.matches("\n  test +%l", printed)
    assert.matches("\n  tensorboard +%l", printed)
    assert.is_nil(printed:find("cannot be loaded", 1, true))
    local script = write [[
      require "perigee.cli".verbs()
      for name in pairs(package.loaded) do
        assert(name ~= "perigee" and not name:match "^perigee%.core", name)
      end]]
    local path = quote(home .. "/lua/?.lua;" .. home .. "/lua/?/init.lua")
    assert.equal(0, os.execute(("LUA_PATH=%s luajit %s"):format(path, script)))
    os.remove(script)
  end)

  it("has help on every command", function()
    for _, verb in ipairs(require("perigee.cli").verbs()) do
      local status, printed, errors = perigee(verb .. " --help")
      assert.equal(0, status, verb .. ": " .. errors)
      assert.matches("^usage: perigee " .. verb, printed)
      for line in printed:gmatch "[^\n]+" do assert.is_true(#line <= 140, verb .. ": " .. line) end
    end
  end)

  it("prints its version", function()
    local status, printed = perigee "--version"
    assert.equal(0, status)
    assert.matches("^perigee %d+%.%d+%.%d+\n$", printed)
  end)

  it("names the nearest command and ends with 2", function()
    local status, _, errors = perigee "docter"
    assert.equal(2, status)
    assert.matches("unknown command \"docter\"; did you mean \"doctor\"%?", errors)
    assert.equal(2, (perigee "../cli/test"))
    assert.equal(2, (perigee "options"))
  end)

  it("reports a user's mistake in one line and ends with 1", function()
    local status, _, errors = perigee "doctor --verbos"
    assert.equal(1, status)
    assert.equal("perigee: unknown option --verbos\n", errors)
    local script = write "local x = nil\nreturn x.y"
    status, _, errors = perigee("run " .. script)
    assert.equal(1, status)
    assert.equal(("perigee: %s:2: attempt to index local 'x' (a nil value)\n"):format(script), errors)
    os.remove(script)
  end)

  it("prints a traceback for its own defects", function()
    local script = write "require('perigee.base.options').parse(nil, { '--x' })"
    local status, _, errors = perigee("run " .. script)
    assert.equal(1, status)
    assert.matches("internal error: .*lua/perigee/base/options.lua:%d+: .*stack traceback", errors)
    os.remove(script)
  end)

  it("runs a script with its arguments", function()
    local script = write "print(arg[0] ~= nil, arg[1], arg[2], select('#', ...), type(pg)) return 7"
    local status, printed = perigee("run " .. script .. " a --help")
    assert.equal(7, status)
    assert.equal("true\ta\t--help\t2\ttable\n", printed)
    os.remove(script)
  end)

  it("says what the machine has", function()
    local status, printed = perigee "doctor"
    assert.equal(0, status)
    for _, heading in ipairs { "Processor", "Memory and disk", "Software", "CUDA" } do
      assert.is_truthy(printed:find(heading, 1, true))
    end
    assert.matches("libpng +%d", printed)
    assert.matches("LuaJIT +2%.", printed)
    assert.matches("\n  matmul +float32 %d+ GFLOP/s, bfloat16 %d+ GFLOP/s ", printed)
    assert.matches("\n  bfloat16 +%l[^\n]+  %-%- " .. (multiplies_bfloat16() and "matmul uses AVX%-512 BF16\n"
      or "[^\n]*computed in float32, and no faster than it\n"), printed)
  end)

  it("refuses an instruction set that isn't there, in a line that names those that are", function()
    for _, name in ipairs { "v5", "V3", "baseline,v3" } do
      local status, printed, errors = perigee("doctor", "PERIGEE_ISA=" .. name)
      assert.equal(1, status)
      assert.equal("", printed)
      assert.matches(("^perigee: PERIGEE_ISA is '%s'; this build on this processor has baseline[v%%d_bf, ]*\n$"):format(
        name), errors)
    end
  end)

  it("says where bf16 is no faster than float32", function()
    local line = "train %s/tests/lua/recipes/tiny.lua --total 2 --align 1 --precision bf16 --runs %s"
    local status, printed = perigee(line:format(home, in_folder()))
    assert.equal(0, status)
    assert.equal(not multiplies_bfloat16(), printed:find("which is no faster than float32", 1, true) ~= nil)
  end)

  it("ends with its script, while its threads still spin", function()
    local script = write 'local a = pg.zeros { 512, 512 }\nprint(a:matmul(a):sum():item())\n'
    local status, printed, errors = perigee("run " .. quote(script), "OMP_NUM_THREADS=2")
    os.remove(script)
    assert.equal(0, status, errors)
    assert.equal("0\n", printed)
  end)
end)
