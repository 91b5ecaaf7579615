-- A teacher that is a recipe: trained at run time, kept, found again, interrupted and taken up.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local lfs = require "lfs"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)
local recipe = door.home .. "/tests/lua/recipes/taught.lua"

local function command(name, options)
  return ("train %s --name %s --runs %s %s"):format(tiny.quote(recipe), name,
    tiny.quote(in_folder "runs"), options or "")
end

local function run(name, options)
  local status, output = tiny.perigee(command(name, options), "PERIGEE_CACHE=" .. tiny.quote(in_folder "cache"))
  assert.equal(0, status, output)
  return output, files.read(in_folder("runs/" .. name .. "/checkpoints/step-0000004.safetensors"))
end

describe("a teacher that is a recipe", function()
  it("is trained once, and then comes from the cache", function()
    local first, bytes = run "one"
    assert.matches("teacher taught%-teacher: training it now; it will be kept in ", first)
    assert.matches("teacher taught%-teacher: 8 steps in ", first)
    local second, same = run "two"
    assert.matches("teacher taught%-teacher: from the cache ", second)
    assert.is_nil(second:find("training it now", 1, true))
    assert.is_true(bytes == same)
    for _, options in ipairs { "--width 48", "--teach 9", "--scale 2" } do
      local other = run("other" .. options:gsub("%W", ""), options)
      assert.matches("training it now", other)
    end
    assert.equal(4, #files.list(in_folder "cache/teachers"))
  end)

  it("is refused from a cache that others can write to, which a cache that Perigee makes is not", function()
    local cache = "PERIGEE_CACHE=" .. tiny.quote(in_folder "cache")
    local function refused(path)
      os.execute(("chmod g+w '%s'"):format(path))
      local status, output = tiny.perigee(command("bad", "--steps 1"), cache)
      assert.equal(1, status)
      assert.matches(path:gsub("%p", "%%%0") .. ": others can write to it %(rw.-w.-%), .* chmod %-R go%-w '", output)
      os.execute(("chmod -R go-w '%s'"):format(in_folder "cache"))
    end
    os.execute(("umask 002; %s >'%s' 2>&1"):format(tiny.command(command("one", "--steps 1"), cache),
      in_folder "output"))
    assert.equal("rwx------", lfs.attributes(in_folder "cache", "permissions"))
    run "two" -- the modes of what lies within don't matter
    os.execute(("chmod -R go-w,a+rX '%s'"):format(in_folder "cache"))
    local teacher = in_folder "cache/teachers/" .. files.list(in_folder "cache/teachers")[1]
    for _, path in ipairs { in_folder "cache", in_folder "cache/teachers", teacher .. "/finished.json",
      teacher .. "/checkpoints/" .. files.list(teacher .. "/checkpoints")[1] } do refused(path) end
    run "three"
  end)

  it("continues where it was interrupted", function()
    local script = ("( %s ) >%s 2>&1 & pid=$!; n=0\n"
      .. "until ls %s/teachers/*/checkpoints/*.safetensors >/dev/null 2>&1 || [ $n -gt 6000 ]\n"
      .. "do sleep 0.01; n=$((n+1)); done\n"
      .. "kill -TERM $pid; wait $pid; echo $?"):format(
        tiny.command(command("stopped", "--teach 200"), "PERIGEE_CACHE=" .. tiny.quote(in_folder "cache")),
        tiny.quote(in_folder "output"), tiny.quote(in_folder "cache"))
    local pipe = io.popen("sh -c " .. tiny.quote(script) .. " 2>/dev/null")
    local status = pipe:read "*a"
    pipe:close()
    local output = files.read(in_folder "output")
    assert.equal("0\n", status, output)
    assert.matches("stopped after step 0; continue with\n  %./perigee train .* %-%-resume\n", output)
    local resumed, bytes = run("stopped", "--teach 200 --resume")
    assert.matches("teacher: resumed at step %d+, stage classify", resumed)
    assert.matches("teacher taught%-teacher: 200 steps in ", resumed)
    files.remove_tree(in_folder "cache")
    local _, whole = run("whole", "--teach 200")
    assert.is_true(bytes == whole)
  end)
end)
