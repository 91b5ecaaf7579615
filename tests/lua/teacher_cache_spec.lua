-- A cached teacher: the same bits as without, files that are found, shared, checked, mended and bounded, and given up
-- when they aren't needed.
local ffi = require "ffi"
local Context = require "perigee.stage.context"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local price = require "perigee.cost.price"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)
local STEPS = 12
local FILES = 3 -- of the tiny recipe: patches, queries and keys of two blocks

local given = os.getenv "PERIGEE_CACHE"
before_each(function() ffi.C.setenv("PERIGEE_CACHE", in_folder "cache", 1) end)
after_each(function()
  if given then ffi.C.setenv("PERIGEE_CACHE", given, 1) else ffi.C.unsetenv "PERIGEE_CACHE" end
end)

local function with(options, more)
  local all = {}
  for _, list in ipairs { options, more or {} } do
    for key, value in pairs(list) do all[key] = value end
  end
  return all
end

--- The last checkpoint's bytes, and the losses and signals of the log.
local function trained(name, options, how)
  tiny.train(options, with({ folder = in_folder(name) }, how))
  local events = {}
  for line in io.lines(in_folder(name .. "/events.jsonl")) do
    local event = json.decode(line)
    if event.losses or event.value then
      events[#events + 1] = json.encode { event.step, event.losses or event.value }
    end
  end
  return tiny.checkpoint(in_folder(name), STEPS), table.concat(events, "\n")
end

--- Paths of the cache's files: of the patches first.
local function cached()
  local paths = {}
  for k, name in ipairs(files.list(in_folder "cache/features")) do paths[k] = in_folder("cache/features/" .. name) end
  return paths
end

describe("a shared cache", function()
  it("is used only if nobody else can have written it", function()
    local owner = require "perigee.io.owner"
    local function why(trusted)
      local fine, message = pcall(owner.expect_trusted, in_folder "cache", in_folder "cache/features/a.cache", trusted)
      return not fine and message:match ": (.-), so a teacher"
    end
    assert.is_false(why()) -- there is none
    owner.make_private_folder(in_folder "cache")
    files.make_folder(in_folder "cache/features")
    files.write(in_folder "cache/features/a.cache", "")
    files.write(in_folder "cache/features/b.cache", "")
    os.execute(("chmod 666 '%s'/*"):format(in_folder "cache/features"))
    assert.is_false(why()) -- nobody else enters the folder
    assert.matches("^it belongs to another user %(number %d+%)$", why {})
    os.execute(("chmod 755 '%s' '%s'"):format(in_folder "cache", in_folder "cache/features"))
    assert.equal("others can write to it (rw-rw-rw-)", why())
    os.execute(("chmod 644 '%s'"):format(in_folder "cache/features/a.cache"))
    assert.is_false(why()) -- b is another's matter
    os.execute(("chmod 1777 '%s'"):format(in_folder "cache"))
    assert.equal("others can write to it (rwxrwxrwx)", why())
    assert.matches("others can write to it", message_of(function() tiny.train({ cache = true }, {}) end))
  end)
end)

local function same_bits(options)
  local bytes, events = trained("off", options)
  local cached_bytes, cached_events = trained("on", with(options, { cache = true }))
  assert.equal(events, cached_events)
  assert.is_true(bytes == cached_bytes)
  assert.equal(FILES, #cached())
end

--- Does this process map any of them?
local function mapped() return io.open("/proc/self/maps"):read("*a"):find(in_folder "cache", 1, true) ~= nil end

describe("a run with a cached teacher", function()
  it("equals the one without, bit for bit", function() same_bits {} end)
  it("does so without mirror images", function() same_bits { flip = false } end)
  it("does so in pieces, with recomputed blocks and the gradient angle", function()
    same_bits { micro = 2, recompute = true, angle = true }
  end)
  it("does so in bfloat16", function() same_bits { precision = "bf16", angle = true } end)
  it("does so in float64", function() same_bits { precision = "float64" } end)

  it("equals the one without, to the precision of what is kept", function()
    local exact = trained("exact", {})
    local kept = trained("kept", { cache = true, kept = "bf16" })
    local features = Context.teacher_features
    local function rounded(x) return x:to("bfloat16"):to "float32" end
    Context.teacher_features = function(self) -- luacheck: ignore 122
      local result = features(self)
      return { patches = rounded(result.patches), taps = setmetatable({}, {
        __index = function(_, name) return rounded(result.taps[name]) end,
      }) }
    end
    local fine, oracle = pcall(trained, "rounded", {})
    Context.teacher_features = features -- luacheck: ignore 122
    assert.is_true(fine, oracle)
    assert.is_true(kept == oracle)
    assert.is_false(kept == exact)
  end)

  it("equals itself after interruptions, with the file filled by batches of another size", function()
    local whole = trained("whole", { micro = 4 })
    for _, step in ipairs { 1, 3, 6, 7 } do
      tiny.train({ micro = step < 6 and 4 or 8, cache = true }, { folder = in_folder "fill", steps = 1 })
      files.remove_tree(in_folder "fill")
      tiny.train({ micro = 4, cache = true }, { folder = in_folder "pieces", steps = step, resume = true })
    end
    assert.is_true(whole == trained("pieces", { micro = 4, cache = true }, { resume = true }))
    assert.equal(FILES, #cached())
  end)

  it("finds the file with another number of threads", function()
    local threads = door.C.pg_threads()
    finally(function() door.check(door.C.pg_threads_set(threads)) end)
    for _, other in ipairs { 1, 64 } do
      door.check(door.C.pg_threads_set(other))
      tiny.train({ cache = true }, { folder = in_folder "threads", steps = 1 })
      files.remove_tree(in_folder "threads")
      assert.equal(FILES, #cached())
    end
  end)

  it("has no teacher in memory, maps the file while it is read, and gives it up with the alignment", function()
    local run = tiny.train({ cache = true }, { folder = in_folder "run", steps = 5, keep = true })
    assert.is_false(run.recipe.teacher:is_materialised())
    assert.is_true(mapped())
    assert.equal(0, tonumber(door.C.pg_memory_now(door.C.PG_CPU, door.C.PG_PURPOSE_TEACHER)))
    local names = {}
    for _, slot in ipairs(run.plan.slots) do names[slot.name] = slot.kind end
    assert.equal("input", names["teacher patches"])
    assert.equal("input", names["teacher queries and keys of block 4"])
    assert.is_nil(names.images and names["teacher block 4"])
    run:free()
    run = tiny.train({ cache = true }, { folder = in_folder "run", steps = 8, resume = true, keep = true })
    assert.equal("free", run.stage.name)
    assert.is_false(mapped())
    assert.is_false(run.teacher.cache)
    run:free()
  end)
end)

describe("a file", function()
  --- Trains a step; the bytes of the file of patches.
  local function bytes_of(options)
    tiny.train(with({ cache = true }, options), { steps = 1 })
    return files.read(cached()[1])
  end

  --- How many files a training step adds.
  local function added(options, change)
    local before = files.kind(in_folder "cache/features") and #cached() or 0
    tiny.train(with({ cache = true }, options), { steps = 1, change = change })
    return #cached() - before
  end

  it("is one for all students, seeds and names of recipes, and another for another teacher, data or precision",
    function()
    assert.equal(FILES, added {})
    assert.equal(0, added({ width = 48, depth = 4, batch = 4, micro = 2 }, function(recipe)
      recipe.seed, recipe.name = 5, "another"
    end))
    assert.equal(FILES, added { kept = "bf16" })
    assert.equal(FILES, added({}, function(recipe)
      recipe.teacher.resize.mode, recipe.teacher.image, recipe.teacher.grid = "bilinear", { 32, 32 }, { 8, 8 }
    end))
    assert.equal(FILES, added({}, function(recipe)
      recipe.data:open()
      recipe.data.sources.images.tensor:pointer()[0] = 255 - recipe.data.sources.images.tensor:pointer()[0]
    end))
    assert.equal(FILES, added({}, function(recipe) recipe.tf32 = true end))
    door.C.pg_tf32_set(0)
  end)

  it("is another where a weight is that it depends on, and no other", function()
    added {}
    local weights = require("perigee.io.safetensors").load(door.home
      .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors")
    local function with_another(name)
      local list = {}
      for key, t in pairs(weights) do list[key] = key == name and t + 1 or t end
      require("perigee.io.safetensors").save(in_folder(name), list, {})
      return added { weights = in_folder(name) }
    end
    assert.equal(FILES, with_another "cls_token")
    assert.equal(1, with_another "norm.bias")                -- patches
    assert.equal(2, with_another "blocks.3.attn.qkv.bias")   -- the last block's: its queries and keys, and patches
  end)

  it("is shared by runs that read other values too, whichever comes first", function()
    local function without(k)
      return function(recipe)
        table.remove(recipe.stages[1].losses, k)
        recipe.stages[1].finish = pg.stop.at_step(6) -- the policy reads the features' loss
      end
    end
    local whole = trained("whole", {})
    assert.equal(1, added({}, without(3)))
    local patches = files.stat(cached()[1])
    files.write(in_folder "marked", files.read(cached()[1]))
    assert.is_true(whole == trained("shared", { cache = true }))
    assert.equal(FILES, #cached())
    assert.same(patches, files.stat(cached()[1]))
    assert.is_true(files.read(in_folder "marked") == files.read(cached()[1]))
    assert.equal(0, added({}, without(2)))
    for _, path in ipairs(cached()) do files.remove(path) end
    assert.equal(2, added({}, without(2)))
    assert.equal(1, added({}, without(3)))
    assert.equal(0, added {})
    assert.is_true(files.read(in_folder "marked") == files.read(cached()[1]))
  end)

  it("continues from whatever an interrupted filling left", function()
    local whole = bytes_of()
    local paths = cached()
    local path, header = paths[1], 4096
    local record = (#whole - header) / 128
    assert.equal(0, record % 64)
    local hole = whole:sub(1, header + 20 * record) .. ("\0"):rep(3 * record)
      .. whole:sub(header + 23 * record + 1, header + 40 * record + 5)
    for _, left in ipairs { "", whole:sub(1, 100), whole:sub(1, header), whole:sub(1, header + record - 1),
                            whole:sub(1, header + 77 * record), whole, hole, "x" .. whole:sub(2), whole .. "more" } do
      files.remove(path)
      files.write(path .. ".part", left)
      assert.is_true(whole == bytes_of { micro = 4 }, #left)
      assert.same(paths, cached())
    end
  end)

  it("outlives a kill while it is being filled", function()
    local whole = bytes_of()
    local path = cached()[1]
    for _, one in ipairs(cached()) do files.remove(one) end
    for _ = 1, 3 do
      local command = ("train %s --set cache=true --set micro=1 --name killed --runs %s"):format(tiny.quote(tiny.path),
        tiny.quote(in_folder "runs"))
      local script = ("( %s ) >/dev/null 2>&1 & pid=$!; n=0\n"
        .. "until [ -s %s.part ] || [ $n -gt 6000 ]; do sleep 0.001; n=$((n+1)); done\n"
        .. "kill -KILL $pid; wait $pid"):format(tiny.command(command), tiny.quote(path))
      os.execute("sh -c " .. tiny.quote(script) .. " 2>/dev/null")
    end
    assert.is_true(whole == bytes_of())
  end)

  --- Trains once through the data, with the cache.
  local function once_through()
    files.remove_tree(in_folder "runs")
    return tiny.perigee(("train %s --set cache=true --align 8 --steps 8 --checkpoint 0 --name one --runs %s"):format(
      tiny.quote(tiny.path), tiny.quote(in_folder "runs")))
  end

  it("that is cut short or another's is said to be, and made again", function()
    local whole = bytes_of()
    local paths = cached()
    for _, other in ipairs { whole, whole:sub(1, -2), "x" .. whole:sub(2) } do
      files.write(paths[1], other)
      local status, output = once_through()
      assert.equal(0, status, output)
      assert.matches(other == whole and "vit%-patches%-%x+%.cache, 128 records, 252.0 KiB"
        or "is not what its name says %(%d+ bytes; %d+ and another header are expected%): it is made again", output)
      assert.is_true(whole == files.read(paths[1]))
      assert.same(paths, cached())
    end
  end)

  it("whose records are damaged stops the run that reads them, and the next start makes those again", function()
    local whole = bytes_of()
    local paths = cached()
    local head, body = whole:sub(1, 4096), whole:sub(4097)
    local record = #body / 128
    local function flipped(at)
      return body:sub(1, at) .. string.char((body:byte(at + 1) + 1) % 256) .. body:sub(at + 2)
    end
    local first, second = body:sub(1, record), body:sub(record + 1, 2 * record)
    local mirrored = body:sub(64 * record + 1, 65 * record)
    for what, damaged in pairs {
      ["a changed byte, in an image's record and its mirror image's"] = flipped(5 * record + 30):sub(1, 64 * record)
        .. flipped(69 * record + 1000):sub(64 * record + 1),
      ["records in another's place"] = second .. first .. body:sub(2 * record + 1, 64 * record) .. second .. mirrored
        .. body:sub(66 * record + 1),
    } do
      files.write(paths[1], head .. damaged)
      local status, output = once_through()
      assert.equal(1, status, what)
      assert.matches("vit%-patches%-%x+%.cache: record %d+ is damaged: its CRC%-32 is another; start the run again, "
        .. "with %-%-resume if it has a checkpoint: damaged records are computed again\n", output)
      status, output = once_through()
      assert.equal(0, status, output)
      assert.matches("continuing after 128 records, [24] of them damaged", output)
      assert.is_true(whole == files.read(paths[1]))
      assert.same(paths, cached())
    end
  end)

  it("is refused before anything is written where it is larger than allowed, or than the disk", function()
    local message = message_of(tiny.train, { cache = true, limit = 0.001 })
    assert.matches("cache_teacher: 64 images and their mirror images of 9%.6 KiB each are 1%.2 MiB, more than the "
      .. "limit of 1%.0 MiB", message)
    assert.is_nil(files.kind(in_folder "cache"))
    local free = files.free_space
    files.free_space = function() return 1000 end -- luacheck: ignore 122
    local fine, full = pcall(tiny.train, { cache = true })
    files.free_space = free -- luacheck: ignore 122
    assert.is_false(fine)
    assert.matches("cache_teacher: [^\n]+ needs 1%.2 MiB more, and its disk has 1%.0 KiB free", full)
    for _, path in ipairs(cached()) do assert.equal(0, files.size(path)) end
    for _, limit in ipairs { 0, -1 } do
      assert.matches("option 'limit_gib' is a number %(" .. tostring(limit):gsub("-", "%%-")
        .. "%); expected a number above 0", message_of(tiny.recipe, { cache = true, limit = limit }))
    end
  end)

  it("that is cut short while it is mapped ends the program in a line that says so", function()
    files.write(in_folder "cut.lua", ([[
      local train, tiny = require "perigee.train", require "tests.lua.tiny"
      local run = train.train(tiny.recipe { cache = true, align = 100, total = 100 }, { steps = 1, quiet = true })
      os.execute("truncate -s 4097 " .. tiny.quote(run.teacher.cache.sources["teacher patches"].path))
      for _ = 1, 20 do run:advance() end
    ]]))
    local status, output = tiny.perigee("run " .. tiny.quote(in_folder "cut.lua"),
      "LUA_PATH=" .. tiny.quote(package.path))
    assert.equal(128 + 7, status, output) -- SIGBUS
    assert.matches("perigee: a file was cut short while it was read, or its disk failed %(SIGBUS%)[^\n]+\n", output)
  end)
end)

describe("what can't be cached", function()
  it("is data with random crops, refused at the recipe's line", function()
    local status, output = tiny.perigee(("train %s --set cache=true --set crop=2"):format(tiny.quote(tiny.path)))
    assert.equal(1, status)
    assert.matches("tests/lua/recipes/tiny%.lua:%d+: recipe: cache_teacher keeps one result an image and its mirror "
      .. "image, but the data set 'noise' crops at random %(crop = 2%); use crop = 0 or cache_teacher = false", output)
  end)

  it("is a precision that there isn't, or a teacher that there isn't", function()
    assert.matches("cache_teacher: unknown precision 'half'; expected float32, bf16 or float64",
      message_of(tiny.recipe, { cache = true, kept = "half" }))
    local recipe = tiny.recipe()
    assert.matches("cache_teacher, and the recipe names no teacher", message_of(pg.recipe, {
      name = "x", student = recipe.student, data = recipe.data, cache_teacher = true,
      stages = { { name = "a", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(1) } } }))
  end)

  --- A recipe whose second loss is a custom one.
  local function custom(cache, compute)
    local recipe = tiny.recipe()
    return pg.recipe {
      name = "custom", student = recipe.student, teacher = recipe.teacher, data = recipe.data, ema = 0.9,
      every = { checkpoint = STEPS }, cache_teacher = cache,
      stages = { { name = "a", finish = pg.stop.at_step(STEPS), losses = { { 1, pg.loss.flow_matching() },
        { 1, pg.loss.custom { name = "own", needs_teacher = true, compute = compute } } } } } }
  end

  it("is a loss that runs the teacher itself; one that reads its taps is", function()
    local function reads(_, context)
      local theirs = context:teacher_features().taps["block 2"]
      return pg.ops.mse(context:tap("block 1"):mean(3), theirs:mean(3):narrow(2, 2, 16):stop_gradient())
    end
    local bytes = {}
    for _, cache in ipairs { false, true } do
      train.train(custom(cache, reads), { folder = in_folder(tostring(cache)), quiet = true }):free()
      bytes[#bytes + 1] = tiny.checkpoint(in_folder(tostring(cache)), STEPS)
    end
    assert.is_true(bytes[1] == bytes[2])
    assert.equal(1, #cached())
    local message = message_of(train.train, custom(true, function(_, context)
      return pg.ops.mse(context:tap("block 1"):mean(3),
        context.teacher:features(context:pixels()):mean(3):stop_gradient())
    end), { quiet = true })
    assert.matches("cache_teacher: a loss runs the teacher itself %(it reads its [%w%._]+%)", message)
  end)
end)

describe("perigee plan", function()
  it("prices a cached teacher: no forward pass in the stage, the file, the time to fill it", function()
    local with_cache, without = tiny.recipe { cache = true }, tiny.recipe {}
    assert.is_nil(price.cache(without))
    assert.is_nil(price.cache(with_cache).bytes) -- the data are not open: how many images isn't known
    with_cache.data:open()
    local cost, stage, before = price.cache(with_cache), price.recipe(with_cache)[1], price.recipe(without)[1]
    tiny.train({ cache = true }, { steps = 1 })
    local bytes = 0
    for _, path in ipairs(cached()) do bytes = bytes + files.size(path) end
    assert.equal(bytes, cost.bytes)
    assert.is_true(cost.seconds > 0)
    assert.equal(0, stage.memory.teacher)
    assert.is_true(stage.flops < before.flops)
    assert.is_true(stage.memory.data > before.memory.data)
  end)
end)
