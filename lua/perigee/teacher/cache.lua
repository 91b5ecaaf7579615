--- The files that stand for a teacher: what the losses read of its forward pass, a file for each value that they read,
--- in it one record an image, and one its mirror image where the data flip. A run fills them before its first step, or
--- finds them; then no step runs the teacher. Runs whose losses read other values share the files of those that both
--- read.
---
---   header   a multiple of 4096 bytes: a line of text, and as JSON all that decides what the records hold
---   records  mirrored·count + index, each: the value, CRC-32, zeros to a multiple of 64
---
--- A record's CRC goes on from those of the header and of its own number, so neither a hole in the file nor a record of
--- another place or file passes for one; the loader checks it when it first reads the record. A file grows as PATH.part
--- and is renamed when it is whole; whatever of it is sound is kept.
local ffi = require "ffi"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local layout = require "perigee.core.layout"
local loader = require "perigee.io.loader"
local program_text = require "perigee.core.text"
local stage_program = require "perigee.stage.program"
local teacher_model = require "perigee.teacher"
local teacher_taps = require "perigee.stage.teacher_taps"
local turn = require "perigee.record.turn"

local C, check = core_ffi.C, core_ffi.check
local tensor = core.tensor
local M = {}

local PAGE, ALIGNMENT, CRC = 4096, 64, 4
local CHUNK = 4 * 2 ^ 20 -- bytes read at once where records are checked

local function round_up(n, unit) return math.ceil(n / unit) * unit end

local function size_text(bytes)
  if bytes < 2 ^ 20 then return ("%.1f KiB"):format(bytes / 2 ^ 10) end
  return bytes < 2 ^ 30 and ("%.1f MiB"):format(bytes / 2 ^ 20) or ("%.2f GiB"):format(bytes / 2 ^ 30)
end

-- ---- the layout -------------------------------------------------------------------------------------------------

---@class perigee.CacheLayout
---@field fields perigee.TeacherField[]  one a file
---@field bytes integer[]    of a field's value
---@field strides integer[]  bytes from one of its records to the next
---@field each integer       bytes of an image's records in all files
---@field images integer     records an image: 2 where the data flip

--- Where everything lies in the files; nil where no stage reads anything of the teacher.
---@return perigee.CacheLayout?
function M.layout(recipe)
  local form = { fields = stage_program.teacher_fields(recipe), bytes = {}, strides = {}, each = 0,
                 images = recipe.data.flip and 2 or 1 }
  if #form.fields == 0 then return nil end
  for k, field in ipairs(form.fields) do
    form.bytes[k] = layout.numel(field.shape) * core_ffi.dtype_bytes[field.dtype]
    form.strides[k] = round_up(form.bytes[k] + CRC, ALIGNMENT)
    form.each = form.each + form.strides[k]
  end
  return form
end

--- Bytes of all files for `count` images.
local function all_bytes(form, count) return #form.fields * PAGE + count * form.images * form.each end

--- Plans the program that makes some fields for `batch` images.
local function filling(recipe, fields, batch, device)
  local p, context = teacher_taps.trace(recipe, batch)
  local outputs = {}
  for k, field in ipairs(fields) do
    outputs[k] = { name = field.name, value = teacher_taps.value(context, field.tap):to(field.dtype) }
  end
  return core.plan.build(p, outputs, { device = device })
end

--- What a cache costs: bytes an image, bytes of the files and seconds to fill them, the latter two where the number of
--- images is known. Nothing is allocated.
---@param seconds_of fun(calls: table[]): number  the time of a program's calls
function M.price(recipe, form, seconds_of)
  local price = { record = form.each, images = form.images, fields = #form.fields }
  if recipe.data.count then
    local batches = math.ceil(recipe.data.count / recipe.micro) * form.images
    price.records = recipe.data.count * form.images
    price.bytes = all_bytes(form, recipe.data.count)
    price.seconds = seconds_of(filling(recipe, form.fields, recipe.micro, "cpu").calls) * batches
  end
  return price
end

local function mirror_text(form) return form.images == 2 and " and their mirror images" or "" end

--- Refuses files that the recipe does not allow, before anything is made ready for them.
function M.check_size(recipe, form)
  local bytes, limit = all_bytes(form, recipe.data.count), recipe.cache_teacher.limit_gib * 2 ^ 30
  if bytes > limit then
    error(("cache_teacher: %d images%s of %s each are %s, more than the limit of %s; raise it with cache_teacher = "
      .. "{ limit_gib = %d }, keep less with precision = \"bf16\", or train with cache_teacher = false"):format(
      recipe.data.count, mirror_text(form), size_text(form.each), size_text(bytes), size_text(limit),
      math.ceil(bytes / 2 ^ 30)), 0)
  end
end

-- ---- the header: what decides the records ----------------------------------------------------------------------

--- CRC-32 of every tensor that a program reads: weights, buffers, constants. `known` keeps those of tensors seen
--- before.
local function tensor_sums(plan, known)
  local sums = {}
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "capture" then
      local t = slot.value.tensor
      if not known[t] then
        local bytes = t.device == "cpu" and t:pointer() or tensor.to_host(t)
        known[t] = ("%08x"):format(C.pg_crc32(0, bytes, t:bytes()))
      end
      sums[#sums + 1] = known[t]
    end
  end
  return table.concat(sums)
end

--- The header's bytes of a field's file. The teacher must be materialised.
local function header_of(run, form, k, known)
  local recipe, field = run.recipe, form.fields[k]
  local plan, teacher = filling(recipe, { field }, 1, run.device), recipe:teacher_model()
  local text = "perigee teacher cache\n" .. json.encode {
    teacher = teacher.name, settings = teacher.settings,
    program = teacher_model.digest(program_text.plan(plan, { cost = false })),
    tensors = teacher_model.digest(tensor_sums(plan, known)), data = recipe.data:digest(), count = recipe.data.count,
    images = form.images, value = { name = field.tap, dtype = field.dtype, shape = field.shape },
    stride = form.strides[k], tf32 = recipe.tf32 or nil,
    device = run.device, isa = ffi.string(C.pg_cpu_isa()), version = ffi.string(C.pg_version()),
  } .. "\n"
  return text .. (" "):rep(round_up(#text, PAGE) - #text)
end

-- ---- records ----------------------------------------------------------------------------------------------------

---@class perigee.CacheFile
---@field path string
---@field header string
---@field seed integer    what the records' sums go on from
---@field field perigee.TeacherField
---@field bytes integer   of a record's value
---@field stride integer
---@field count integer   images
---@field images integer  records an image
---@field records integer
---@field writer? perigee.Writer  while it is filled, with
---@field have? integer           how many records it had before
---@field bad? table<integer, boolean>  and which of them are not sound

--- CRC-32 of the record at `bytes`, number `record` from 0.
local function record_sum(file, bytes, record) return C.pg_record_crc32(file.seed, record, bytes, file.bytes) end

--- Is the record at `bytes` sound?
local function is_sound(file, bytes, record)
  local stored = ffi.new "uint32_t[1]"
  ffi.copy(stored, bytes + file.bytes, CRC)
  return stored[0] == record_sum(file, bytes, record)
end

local function interrupted() return C.pg_signals_pending() ~= 0 end

--- Numbers of the records among the first `have` of a file that are not sound, as a set, and how many. Nil:
--- interrupted.
local function unsound(file, path, have)
  local stride, bad, found = file.stride, {}, 0
  local at_once = math.max(1, math.floor(CHUNK / stride))
  local buffer = ffi.new("uint8_t[?]", at_once * stride)
  for first = 0, have - 1, at_once do
    if interrupted() then return nil end
    local count = math.min(at_once, have - first)
    check(C.pg_file_read(path, #file.header + first * stride, buffer, count * stride))
    for k = 0, count - 1 do
      if not is_sound(file, buffer + k * stride, first + k) then
        bad[first + k], found = true, found + 1
      end
    end
  end
  return bad, found
end

local function whole_bytes(file) return #file.header + file.records * file.stride end

local function has_header(file, path)
  return files.size(path) >= #file.header and files.read(path, 0, #file.header) == file.header
end

--- Is the finished file there? What has its name and cannot be it goes.
local function find(run, file)
  if not files.exists(file.path) then return false end
  if files.size(file.path) ~= whole_bytes(file) or not has_header(file, file.path) then
    run.progress:line("teacher cache: %s is not what its name says (%d bytes; %d and another header are expected): it "
      .. "is made anew",
      file.path, files.size(file.path), whole_bytes(file))
    files.remove(file.path)
    return false
  end
  run.progress:line("teacher cache: %s, %d records, %s", file.path, file.records, size_text(whole_bytes(file)))
  return true
end

-- ---- filling ----------------------------------------------------------------------------------------------------

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

--- Makes a writer's file empty, or lets it begin with the header and end with a whole record, and looks for unsound
--- ones. False: interrupted.
local function take_up(file)
  local part, writer = file.path .. ".part", file.writer
  if not has_header(file, part) or writer:bytes() > whole_bytes(file) then
    writer:truncate(0)
    file.have, file.bad, file.found = 0, {}, 0
    return true
  end
  file.have = math.floor((writer:bytes() - #file.header) / file.stride)
  writer:truncate(#file.header + file.have * file.stride)
  file.bad, file.found = unsound(file, part, file.have)
  return file.bad ~= nil
end

---@class perigee.CacheFiller
local Filler = {}
Filler.__index = Filler

--- The program and its buffers; a pass takes as many images as one of the recipe's.
local function filler(run, list)
  local recipe, batch = run.recipe, run.recipe.micro
  local fields, buffers, records, read = {}, {}, {}, {}
  for k, file in ipairs(list) do
    fields[k], buffers[k] = file.field, ffi.new("uint8_t[?]", file.bytes * batch)
    records[k] = ffi.new("uint8_t[?]", file.stride)
  end
  local plan = filling(recipe, fields, batch, run.device)
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

--- Is a record of a file still to be written?
local function is_wanted(file, number) return number >= file.have or file.bad[number] == true end

--- Writes a record: value and sum; `record` is room for it, which ends with zeros.
local function write_record(file, number, value, record)
  ffi.copy(record, value, file.bytes)
  ffi.copy(record + file.bytes, ffi.new("uint32_t[1]", record_sum(file, value, number)), CRC)
  local at = #file.header + number * file.stride
  if at == file.writer:bytes() then file.writer:write(record, file.stride)
  else file.writer:write_at(at, ffi.string(record, file.stride)) end
end

--- Runs the teacher on a batch, whose first `count` images' records are numbered from `first`, and writes those that
--- are wanted.
function Filler:fill(batch, first, count)
  local out = self.executable:run(batch)
  for k, file in ipairs(self.files) do
    local buffer = self.buffers[k]
    check(C.pg_tensor_read(tensor.handle(out[file.field.name]), buffer, file.bytes * self.batch))
    for n = 0, count - 1 do
      if is_wanted(file, first + n) then write_record(file, first + n, buffer + n * file.bytes, self.records[k]) end
    end
  end
end

--- Is any of these records wanted in any file?
function Filler:wants(first, count)
  for _, file in ipairs(self.files) do
    for number = first, first + count - 1 do
      if is_wanted(file, number) then return true end
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

--- Fills what is missing in some files. Returns how many images the teacher saw; nil: interrupted.
local function fill(run, list)
  local self, count, images, seen = filler(run, list), list[1].count, list[1].images, 0
  local show = shown(run, list[1].records)
  local function body()
    for _, file in ipairs(list) do
      if file.writer:bytes() == 0 then file.writer:write(file.header) end
    end
    for pass = 0, images - 1 do
      self.loader = self:open_loader(pass == 1)
      for index = 0, count - 1, self.batch do
        local first, now = pass * count + index, math.min(self.batch, count - index)
        if self:wants(first, now) then
          if interrupted() then return nil end
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
  local fine, result = pcall(body)
  self:free()
  if not fine then error(result, 0) end
  return result
end

--- Takes the files up of which no other process has the writer: their list. Nil: interrupted.
local function begin(run, missing)
  local list = {}
  for _, file in ipairs(missing) do
    local writer = writer_of(run, file)
    if writer == nil then return nil end
    if writer then
      file.writer, list[#list + 1] = writer, file
      if not take_up(file) then return nil end
    end
  end
  return list
end

--- Says what is about to be filled; an error where the disk has no room for it.
local function announce(run, list)
  local line = function(...) run.progress:line(...) end
  local missing, whole, each = 0, 0, 0
  for _, file in ipairs(list) do
    missing = missing + whole_bytes(file) - file.writer:bytes()
    whole, each = whole + whole_bytes(file), each + file.stride
  end
  local folder = files.split(list[1].path)
  local space = files.free_space(folder)
  if missing > space then
    error(("cache_teacher: %s needs %s more, and its disk has %s free; set PERIGEE_CACHE to a folder on another, or "
      .. "train "
      .. "with cache_teacher = false"):format(folder, size_text(missing), size_text(space)), 0)
  end
  line("teacher cache: %d images%s, %s each, %s in all, are kept in %s", list[1].count, mirror_text(list[1]),
    size_text(each), size_text(whole), folder)
  for _, file in ipairs(list) do
    local damaged = file.found > 0 and (", %d of them damaged"):format(file.found) or ""
    if file.have > 0 then line("teacher cache: %s: going on after %d records%s", file.path, file.have, damaged) end
  end
end

--- Makes the files that aren't there. False: interrupted; what was written stays for the next time.
local function make(run, missing)
  local started, seen = C.pg_clock_seconds(), nil
  local fine, message = pcall(function()
    local list = begin(run, missing)
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

-- ---- for a run --------------------------------------------------------------------------------------------------

--- The files of a run, in the order of their paths: processes that wait for one another do so in the same order.
local function files_of(run, form)
  local recipe, folder, list, known = run.recipe, teacher_model.cache_folder() .. "/features", {}, {}
  files.make_folder(folder)
  for k, field in ipairs(form.fields) do
    local header = header_of(run, form, k, known)
    list[k] = {
      path = ("%s/%s-%s-%s.cache"):format(folder, recipe:teacher_model().name, field.tap:gsub("[^%w]+", "-"),
        teacher_model.digest(header)),
      header = header, seed = C.pg_crc32(0, header, #header), field = field, bytes = form.bytes[k],
      stride = form.strides[k],
      count = recipe.data.count, images = form.images, records = recipe.data.count * form.images,
    }
  end
  table.sort(list, function(a, b) return a.path < b.path end)
  return list
end

--- Finds or fills the files of a run whose teacher is materialised: { fields, sources } for its loaders. Nil:
--- interrupted.
---@param form perigee.CacheLayout
function M.open(run, form)
  local missing, sources = {}, {}
  for _, file in ipairs(files_of(run, form)) do
    if not find(run, file) then missing[#missing + 1] = file end
    sources[file.field.name] = { path = file.path, offset = #file.header, stride = file.stride, seed = file.seed,
                                 mirrored = (file.images - 1) * file.count * file.stride }
  end
  if #missing > 0 and not make(run, missing) then return nil end
  return { fields = form.fields, sources = sources }
end

--- After an error of a run: where it says that a record is damaged, the file leaves its place, and the next start makes
--- the record anew. Returns the error, with a word about that.
function M.set_aside(cache, message)
  if type(message) ~= "string" or not message:find ": record %d+ is damaged: " then return message end
  for _, source in pairs(cache.sources) do
    if message:find(source.path .. ": ", 1, true) and files.exists(source.path) then
      files.rename(source.path, source.path .. ".part")
      return message .. "; start the run again, with --resume if it has a checkpoint: what is damaged is computed anew"
    end
  end
  return message
end

return M
