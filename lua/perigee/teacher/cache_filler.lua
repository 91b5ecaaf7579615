--- Filling the files of a cached teacher: the teacher runs over the data in their own order, then over their mirror
--- images, and every record that is missing or damaged is written.
local ffi = require "ffi"
local cache_file = require "perigee.teacher.cache_file"
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local files = require "perigee.io.files"
local loader = require "perigee.io.loader"
local size = require "perigee.base.size"
local teacher_taps = require "perigee.stage.teacher_taps"
local turn = require "perigee.record.turn"

local C, check = core_ffi.C, core_ffi.check
local tensor = core.tensor
local M = {}

--- Plans the program that makes some fields for `batch` images.
---@param fields perigee.TeacherField[]
---@return perigee.Plan
function M.plan(recipe, fields, batch, device)
  local p, context = teacher_taps.trace(recipe, batch)
  local outputs = {}
  for k, field in ipairs(fields) do
    outputs[k] = { name = field.name, value = teacher_taps.value(context, field.teacher, field.tap):to(field.dtype) }
  end
  return core.plan.build(p, outputs, { device = device })
end

-- ---- the program over the data ----------------------------------------------------------------------------------

---@class perigee.CacheFiller
local Filler = {}
Filler.__index = Filler

--- The program and its buffers; a pass takes as many images as one of the recipe's.
local function new_filler(run, list)
  local recipe, batch = run.recipe, run.recipe.micro
  local fields, buffers, records, read = {}, {}, {}, {}
  for k, file in ipairs(list) do
    fields[k], buffers[k] = file.field, ffi.new("uint8_t[?]", file.bytes * batch)
    records[k] = ffi.new("uint8_t[?]", file.stride)
  end
  local plan = M.plan(recipe, fields, batch, run.device)
  for _, slot in ipairs(plan.slots) do read[slot.name] = true end
  return setmetatable({
    files = list, batch = batch, buffers = buffers, records = records, data = recipe.data, read = read,
    device = run.device, executable = core.executable.new(plan, { purpose = "teacher", output_purpose = "teacher" }),
  }, Filler)
end

--- The data in their own order, all of them mirrored or none.
function Filler:open_loader(mirrored)
  local data = self.data
  local opened = loader.new {
    count = data.count, batch = self.batch, fields = data:fields(), sources = data.sources, shuffle = false,
    flip = mirrored and "always" or false, threads = 1, depth = 2, device = self.device,
  }
  for _, field in ipairs(data:fields()) do opened:want(field.name, self.read[field.name] or false) end
  return opened
end

--- Runs the teacher on a batch, whose first `count` images' records are numbered from `first`, and writes those that
--- are wanted.
function Filler:fill(batch, first, count)
  local out = self.executable:run(batch)
  for k, file in ipairs(self.files) do
    local buffer = self.buffers[k]
    check(C.pg_tensor_read(tensor.handle(out[file.field.name]), buffer, file.bytes * self.batch))
    for n = 0, count - 1 do
      if file:wants(first + n) then file:write(first + n, buffer + n * file.bytes, self.records[k]) end
    end
  end
end

--- Is any of these records wanted in any file?
function Filler:wants(first, count)
  for _, file in ipairs(self.files) do
    for number = first, first + count - 1 do
      if file:wants(number) then return true end
    end
  end
  return false
end

function Filler:free()
  if self.loader then self.loader:close() end
  for _, t in pairs(self.executable.outputs) do t:free() end
  self.executable:free()
end

--- Shows how far it is: a bar on a terminal, a line every few seconds elsewhere.
local function shown(run, records)
  local started, last = C.pg_clock_seconds(), C.pg_clock_seconds()
  local progress, at_start = run.progress, nil
  return function(done)
    at_start = at_start or done
    local now = C.pg_clock_seconds()
    if now - last < (progress.terminal and 0.1 or 5) or done == at_start then return end
    last = now
    local rate = (done - at_start) / (now - started)
    progress:show(("teacher cache: image %d/%d  %.0f images/s  %s left"):format(done, records, rate,
      progress.duration((records - done) / rate)), done / records)
  end
end

--- Goes through the data and fills what is missing. Returns how many images the teacher saw; nil: interrupted.
function Filler:run(show)
  local count, images, seen = self.files[1].count, self.files[1].images, 0
  for pass = 0, images - 1 do
    self.loader = self:open_loader(pass == 1)
    for index = 0, count - 1, self.batch do
      local first, now = pass * count + index, math.min(self.batch, count - index)
      if self:wants(first, now) then
        if cache_file.interrupted() then return nil end
        if self.loader.step ~= index / self.batch - 1 then self.loader:seek(index / self.batch) end
        self:fill(self.loader:next(), first, now)
        seen = seen + now
        show(first + now)
      end
    end
    self.loader:close()
  end
  return seen
end

-- ---- the files --------------------------------------------------------------------------------------------------

--- The writer of PATH.part, once no other process has it; false where the file was finished meanwhile. Nil:
--- interrupted.
local function writer_of(run, file)
  return turn.wait(run, ("teacher cache: another process fills %s: waiting for it"):format(file.path), function()
    local fine, writer = pcall(files.resume, file.path)
    if fine then
      if not files.exists(file.path) then return writer end
      writer:abort()
      return false
    end
    if not writer:find("another process writes it", 1, true) then error(writer, 0) end
  end)
end

--- Takes up the files that no other process finishes meanwhile: their list. Nil: interrupted.
local function take_up(run, missing)
  local list = {}
  for _, file in ipairs(missing) do
    local writer = writer_of(run, file)
    if writer == nil then return nil end
    if writer then
      list[#list + 1] = file
      if not file:resume(writer) then return nil end
    end
  end
  return list
end

--- Says what is about to be filled; an error where the disk has no room for it.
local function announce(run, list)
  local line = function(...) run.progress:line(...) end
  local missing, whole, each = 0, 0, 0
  for _, file in ipairs(list) do
    missing = missing + file:whole_bytes() - file.writer:bytes()
    whole, each = whole + file:whole_bytes(), each + file.stride
  end
  local folder = files.split(list[1].path)
  local space = files.free_space(folder)
  if missing > space then
    error(("cache_teacher: %s needs %s more, and its disk has %s free; set PERIGEE_CACHE to a folder on another, or "
      .. "train with cache_teacher = false"):format(folder, size.text(missing), size.text(space)), 0)
  end
  line("teacher cache: %d images%s, %s each, %s in all, are kept in %s", list[1].count,
    cache_file.mirrors(list[1].images), size.text(each), size.text(whole), folder)
  for _, file in ipairs(list) do
    local damaged = file.found > 0 and (", %d of them damaged"):format(file.found) or ""
    if file.have > 0 then line("teacher cache: %s: continuing after %d records%s", file.path, file.have, damaged) end
  end
end

--- Fills what is missing in files that were taken up. Returns how many images the teacher saw; nil: interrupted.
local function fill(run, list)
  local filler = new_filler(run, list)
  local fine, result = pcall(function()
    for _, file in ipairs(list) do
      if file.writer:bytes() == 0 then file.writer:write(file.header) end
    end
    return filler:run(shown(run, list[1].records))
  end)
  filler:free()
  if not fine then error(result, 0) end
  return result
end

--- Makes the files that aren't there. False: interrupted; what was written stays for the next time.
---@param run perigee.Run  its teacher is materialised
---@param missing perigee.CacheFile[]
---@return boolean
function M.make(run, missing)
  local started, seen = C.pg_clock_seconds(), nil
  local fine, message = pcall(function()
    local list = take_up(run, missing)
    if list and #list > 0 then
      announce(run, list)
      seen = fill(run, list)
    else seen = list and 0 end
  end)
  for _, file in ipairs(missing) do
    if file.writer and fine and seen then file.writer:commit() elseif file.writer then file.writer:suspend() end
    file.writer = nil
  end
  if not fine then error(message, 0) end
  if seen and seen > 0 then
    local seconds = C.pg_clock_seconds() - started
    run.progress:line("teacher cache: filled in %s (%.0f images/s)", run.progress.duration(seconds),
      seen / math.max(seconds, 1e-9))
  end
  return seen ~= nil
end

return M
