-- Logs for TensorBoard: records and messages read back here byte by byte, and by TensorBoard's own reader where Python
-- has one (PERIGEE_TENSORBOARD_PYTHON, or python3; `pip install tensorboard`).
local bit = require "bit"
local Board = require "perigee.record.tensorboard"
local Events = require "perigee.record.events"
local door = require "perigee.core.ffi"
local ffi = require "ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function crc32c(text) -- bit by bit
  local c = 0xFFFFFFFF
  for k = 1, #text do
    c = bit.bxor(c, text:byte(k))
    for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(c, 1) == 1 and 0x82F63B78 or 0) end
  end
  return bit.bnot(c) % 2 ^ 32
end

local function masked(text)
  local c = crc32c(text)
  return (math.floor(c / 2 ^ 15) + (c % 2 ^ 15) * 2 ^ 17 + 0xa282ead8) % 2 ^ 32
end

local function number(text, at, count)
  local value = 0
  for k = count - 1, 0, -1 do value = value * 256 + text:byte(at + k) end
  return value
end

--- A message's fields: number -> list of values.
local function message(text)
  local at, fields = 1, {}
  local function varint()
    local value, scale = 0, 1
    repeat
      local byte = text:byte(at)
      value, scale, at = value + byte % 128 * scale, scale * 128, at + 1
    until byte < 128
    return value
  end
  while at <= #text do
    local key = varint()
    local field, kind = math.floor(key / 8), key % 8
    local value
    if kind == 0 then value = varint()
    else
      local size = kind == 1 and 8 or kind == 5 and 4 or varint()
      value, at = text:sub(at, at + size - 1), at + size
      if kind == 1 then value = ffi.cast("const double *", value)[0] end
      if kind == 5 then value = ffi.cast("const float *", value)[0] end
    end
    fields[field] = fields[field] or {}
    table.insert(fields[field], value)
  end
  return fields
end

--- The events of a file, each checked by its sums.
local function read(path)
  local text, at, list = files.read(path), 1, {}
  while at <= #text do
    local length = number(text, at, 8)
    assert.equal(masked(text:sub(at, at + 7)), number(text, at + 8, 4))
    local body = text:sub(at + 12, at + 11 + length)
    assert.equal(length, #body)
    assert.equal(masked(body), number(text, at + 12 + length, 4))
    list[#list + 1] = message(body)
    at = at + 16 + length
  end
  return list
end

--- Scalars by name: step -> value; sentences and pictures: lists of "step text".
local function contents(path)
  local scalars, sentences, pictures, restarts = {}, {}, {}, {}
  for k, event in ipairs(read(path)) do
    local step = event[2][1]
    if k == 1 then assert.equal("brain.Event:2", event[3][1]) end
    if event[7] then restarts[#restarts + 1] = step end
    local value = event[5] and message(message(event[5][1])[1][1])
    if value and value[2] then
      scalars[value[1][1]] = scalars[value[1][1]] or {}
      scalars[value[1][1]][step] = value[2][1]
    elseif value and value[8] then sentences[#sentences + 1] = step .. " " .. message(value[8][1])[8][1]
    elseif value then
      local image = message(value[4][1])
      pictures[#pictures + 1] = ("%d %dx%d %d"):format(step, image[2][1], image[1][1], #image[4][1])
    end
  end
  return { scalars = scalars, sentences = sentences, pictures = pictures, restarts = restarts }
end

--- A run's log, and a picture that it names.
local function run_of(events)
  files.make_folder(in_folder "run/samples")
  files.write(in_folder "run/config.json", '{"batch":4}')
  local png = require "perigee.io.png"
  png.save(in_folder "run/samples/a.png", require("perigee").zeros(3, 5, 3, { dtype = "uint8" }))
  local log = Events.open(in_folder "run")
  for _, event in ipairs(events) do log:write(event) end
  log:close()
  return in_folder "run"
end

local EVENTS = {
  { event = "start", step = 0, recipe = "r", seed = 7 },
  { event = "stage", step = 0, stage = "align", policy = "at_step(2)" },
  { event = "step", step = 2, steps = 2, losses = { denoise = 1.5 }, images_per_second = 8, stage = "align" },
  { event = "signal", step = 2, name = "angle", value = { cosine = { 0.25, -0.5 }, time = { 0.1, 0.9 } } },
  { event = "stage", step = 2, stage = "free", from = "align", reason = "step 2 reached", policy = "at_step(300)" },
  { event = "sample", step = 300, file = "a.png" },
  { event = "end", step = 300, reason = "step 300 reached" },
}

describe("TensorBoard's files", function()
  it("have sums of known value", function()
    assert.equal(0xE3069283, crc32c "123456789") -- RFC 3720's polynomial
  end)

  it("hold numbers, sentences and pictures of a log", function()
    local folder = run_of(EVENTS)
    local status, output = tiny.perigee("tensorboard " .. folder)
    assert.equal(0, status, output)
    local list = Board.files(folder)
    assert.equal(1, #list)
    assert.equal(list[1] .. "\n", output)
    local found = contents(list[1])
    assert.same({ [2] = 1.5 }, found.scalars["loss/denoise"])
    assert.same({ [2] = 8 }, found.scalars["step/images_per_second"])
    assert.same({ [2] = 0.25 }, found.scalars["signal/angle.cosine[1]"])
    assert.same({ [2] = -0.5 }, found.scalars["signal/angle.cosine[2]"])
    assert.same({ "0 start: recipe r, seed 7, step 0", "0 stage **align** begins; until at_step(2)",
      "2 stage **free** begins; align ends: step 2 reached; until at_step(300)", "300 the run ends: step 300 reached" },
      found.sentences)
    assert.same({ ("300 5x3 %d"):format(files.size(in_folder "run/samples/a.png")) }, found.pictures)
    local inode = output
    status, output = tiny.perigee("tensorboard " .. folder)
    assert.equal(0, status)
    assert.equal(inode, output) -- replaced, not added to
    assert.equal(1, #Board.files(folder))
  end)

  it("are written while a run trains, one for each call, and a resume takes back what came after", function()
    local train = "train tests/lua/recipes/tiny.lua --runs %s --name t --quiet --weights "
      .. "tests/oracle/fixtures/haste_teacher.weights.safetensors --checkpoint 4 "
    train = train:format(in_folder())
    local status, output = tiny.perigee(train .. "--tensorboard --steps 6")
    assert.equal(0, status, output)
    status, output = tiny.perigee(train .. "--resume") -- remembered
    assert.equal(0, status, output)
    local list = Board.files(in_folder "t")
    assert.equal(2, #list)
    local first, second = contents(list[1]), contents(list[2])
    assert.same({ 6 }, second.restarts)
    assert.is_number(first.scalars["loss/attention"][6])
    assert.is_number(second.scalars["loss/denoise"][12])
    assert.is_nil(first.scalars["loss/denoise"][12])
    assert.equal(1, #second.pictures)
    local logged = {}
    for _, event in ipairs(Events.read(in_folder "t")) do
      if event.event == "step" then logged[event.step] = event.losses.denoise end
    end
    for step, value in pairs(logged) do
      local seen = first.scalars["loss/denoise"][step] or second.scalars["loss/denoise"][step]
      assert.is_true(math.abs(seen - value) < 1e-6 * math.abs(value))
    end
  end)

  it("follow a log that grows, and are written again where it went back", function()
    local folder = run_of(EVENTS)
    local pid = tonumber((io.popen(("( %s >%s 2>&1 & echo $! )"):format(
      tiny.command("tensorboard " .. folder .. " --follow --every 0.1"), in_folder "said")):read "*l"))
    local function scalars_of(wanted)
      local found
      for _ = 1, 200 do
        local path = Board.files(folder)[1]
        local fine, read_now = pcall(contents, path)
        found = fine and read_now.scalars["loss/denoise"]
        if found and wanted(found) then return found end
        ffi.C.poll(nil, 0, 50)
      end
      return found
    end
    scalars_of(function(found) return found[2] end)
    local log = Events.open(folder)
    log:write { event = "step", step = 400, losses = { denoise = 0.5 } }
    log:close()
    assert.same({ [2] = 1.5, [400] = 0.5 }, scalars_of(function(found) return found[400] end))
    files.write(folder .. "/events.jsonl", '{"event":"step","step":1,"losses":{"denoise":3}}\n')
    assert.same({ [1] = 3 }, scalars_of(function(found) return not found[400] end))
    os.execute("kill -TERM " .. pid)
  end)

  it("that can't be written stop no training", function()
    local told = {}
    local hear = Board.listener(in_folder "none", function(text) told[#told + 1] = text end)
    hear { event = "step", step = 1, losses = {} }
    hear { event = "step", step = 2, losses = {} }
    assert.equal(1, #told)
    assert.matches("TensorBoard's file ends here: `perigee tensorboard .*none` writes it again", told[1])
  end)

  it("are asked for of runs", function()
    local status, output = tiny.perigee("tensorboard " .. in_folder())
    assert.equal(1, status)
    assert.matches("is not a run: events.jsonl is missing", output)
  end)

  it("are left to the trainer that is writing one", function()
    files.write(in_folder "events.jsonl", json.encode { event = "step", step = 1, losses = { denoise = 1 } } .. "\n")
    json.write(in_folder "config.json", { command = { command = { tensorboard = true }, recipe = {} } })
    files.write(in_folder "events.out.tfevents.0000000001.perigee.0", "the trainer's")
    local lock = files.lock(in_folder "lock")
    local status, output = tiny.perigee("tensorboard " .. in_folder())
    lock:free()
    assert.equal(1, status, output)
    assert.matches("this run is going with %-%-tensorboard and writes its file itself", output)
    assert.equal("the trainer's", files.read(in_folder "events.out.tfevents.0000000001.perigee.0"))
    status, output = tiny.perigee("tensorboard " .. in_folder())
    assert.equal(0, status, output)
  end)

  it("are read by TensorBoard", function()
    local python = os.getenv "PERIGEE_TENSORBOARD_PYTHON" or "python3"
    if os.execute(python .. " -c 'import tensorboard' 2>/dev/null") ~= 0 then
      pending "TensorBoard is not there"
      return
    end
    local folder = run_of(EVENTS)
    tiny.perigee("tensorboard " .. folder)
    local pipe = io.popen(("%s %s/tests/oracle/read_tensorboard.py %s 2>/dev/null"):format(python, door.home, folder))
    local text = pipe:read "*a"
    pipe:close()
    assert.matches("\nsignal/angle.cosine%[2%] 2=%-0.5\n", text)
    assert.matches("loss/denoise 2=1.5\n", text)
    assert.matches("\nevents 300 the run ends: step 300 reached\n", text)
    assert.matches("\nsamples 300 5 3 %d+\n", text)
  end)
end)
