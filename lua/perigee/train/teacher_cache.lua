--- The file that stands for a teacher: what the losses read of its forward pass, one record an image, and one its mirror
--- image where the data flip. A run fills it before its first step, or finds it; then no step runs the teacher.
---
---   header   a multiple of 4096 bytes: a line of text, and as JSON all that decides what the records hold
---   records  mirrored·count + index, each: the fields (each from a multiple of 64 bytes), CRC-32, zeros to a multiple of 64
---
--- A record's CRC goes on from those of the header and of its own number, so neither a hole in the file nor a record of
--- another place or file passes for one. The file grows as PATH.part and is renamed when it is whole; whatever of it is
--- sound is kept.
local ffi = require "ffi"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local layout = require "perigee.core.layout"
local loader = require "perigee.io.loader"
local machine = require "perigee.train.machine"
local program_text = require "perigee.core.text"
local stage_program = require "perigee.train.stage"
local teacher_model = require "perigee.train.teacher"
local teacher_taps = require "perigee.train.teacher_taps"

ffi.cdef "int poll(void *descriptors, unsigned long count, int milliseconds);"

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
---@field fields perigee.TeacherField[]
---@field offsets integer[]  of the fields in a record
---@field bytes integer[]    of the fields
---@field payload integer    bytes of a record before its CRC
---@field stride integer     bytes from one record to the next
---@field images integer     records an image: 2 where the data flip

--- Where everything lies in a record; nil where no stage reads anything of the teacher.
---@return perigee.CacheLayout?
function M.layout(recipe)
  local fields = stage_program.teacher_fields(recipe)
  if #fields == 0 then return nil end
  local offsets, bytes, at = {}, {}, 0
  for k, field in ipairs(fields) do
    offsets[k], bytes[k] = at, layout.numel(field.shape) * core_ffi.dtype_bytes[field.dtype]
    at = round_up(at + bytes[k], ALIGNMENT)
  end
  return { fields = fields, offsets = offsets, bytes = bytes, payload = at, stride = round_up(at + CRC, ALIGNMENT),
           images = recipe.data.flip and 2 or 1 }
end

--- Plans the program that fills records for `batch` images.
local function filling(recipe, form, batch, device)
  local p, context = teacher_taps.trace(recipe, batch)
  local outputs = {}
  for k, field in ipairs(form.fields) do
    outputs[k] = { name = field.name, value = teacher_taps.value(context, field.tap):to(field.dtype) }
  end
  return core.plan.build(p, outputs, { device = device })
end

--- What a cache costs: bytes a record, bytes of the file and seconds to fill it, the latter two where the number of images
--- is known. Nothing is allocated.
function M.price(recipe, form, on)
  local price = { record = form.stride, images = form.images, fields = #form.fields }
  if recipe.data.count then
    local batches = math.ceil(recipe.data.count / recipe.micro) * form.images
    price.records = recipe.data.count * form.images
    price.bytes = PAGE + price.records * form.stride
    price.seconds = machine.seconds(on, filling(recipe, form, recipe.micro, "cpu").calls, recipe.dtype) * batches
  end
  return price
end

local function mirror_text(form) return form.images == 2 and " and their mirror images" or "" end

--- Refuses a file that the recipe does not allow, before anything is made ready for it.
function M.check_size(recipe, form)
  local bytes, limit = PAGE + recipe.data.count * form.images * form.stride, recipe.cache_teacher.limit_gib * 2 ^ 30
  if bytes > limit then
    error(("cache_teacher: %d images%s of %s each are %s, more than the limit of %s; raise it with cache_teacher = "
      .. "{ limit_gib = %d }, keep less with precision = \"bf16\", or train with cache_teacher = false"):format(
      recipe.data.count, mirror_text(form), size_text(form.stride), size_text(bytes), size_text(limit),
      math.ceil(bytes / 2 ^ 30)), 0)
  end
end

-- ---- the header: what decides the records ----------------------------------------------------------------------

--- CRC-32 of every tensor that a program reads: weights, buffers, constants.
local function tensor_sums(plan)
  local sums = {}
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "capture" then
      local t = slot.value.tensor
      local bytes = t.device == "cpu" and t:pointer() or tensor.to_host(t)
      sums[#sums + 1] = ("%08x"):format(C.pg_crc32(0, bytes, t:bytes()))
    end
  end
  return table.concat(sums)
end

--- The header's bytes. The teacher must be materialised.
local function header_of(run, form)
  local recipe, fields = run.recipe, {}
  local plan = filling(recipe, form, 1, run.device)
  for k, field in ipairs(form.fields) do fields[k] = { name = field.tap, dtype = field.dtype, shape = field.shape } end
  local teacher = recipe:teacher_model()
  local text = "perigee teacher cache\n" .. json.encode {
    teacher = teacher.name, settings = teacher.settings, program = teacher_model.digest(program_text.plan(plan)),
    tensors = teacher_model.digest(tensor_sums(plan)), data = recipe.data:digest(), count = recipe.data.count,
    images = form.images, fields = fields, stride = form.stride, device = run.device, isa = ffi.string(C.pg_cpu_isa()),
    version = ffi.string(C.pg_version()),
  } .. "\n"
  return text .. (" "):rep(round_up(#text, PAGE) - #text)
end

-- ---- records ----------------------------------------------------------------------------------------------------

---@class perigee.CacheFile
---@field path string
---@field header string
---@field form perigee.CacheLayout
---@field count integer  images
---@field records integer

--- CRC-32 of the record at `bytes`, number `record` from 0.
local function record_sum(file, bytes, record)
  local number = tostring(record)
  return tonumber(C.pg_crc32(C.pg_crc32(file.seed, number, #number), bytes, file.form.payload))
end

--- Where the CRC lies in a record at `bytes`.
local function sum_place(file, bytes) return ffi.cast("uint32_t *", bytes + file.form.payload) end

local function interrupted() return C.pg_signals_pending() ~= 0 end

--- Numbers of the records among the first `have` of a file that are not sound, as a set, and how many. Nil: interrupted.
local function unsound(file, path, have)
  local stride, bad, found = file.form.stride, {}, 0
  local at_once = math.max(1, math.floor(CHUNK / stride))
  local buffer = ffi.new("uint8_t[?]", at_once * stride)
  for first = 0, have - 1, at_once do
    if interrupted() then return nil end
    local count = math.min(at_once, have - first)
    check(C.pg_file_read(path, #file.header + first * stride, buffer, count * stride))
    for k = 0, count - 1 do
      local bytes = buffer + k * stride
      if sum_place(file, bytes)[0] ~= record_sum(file, bytes, first + k) then
        bad[first + k], found = true, found + 1
      end
    end
  end
  return bad, found
end

local function whole_bytes(file) return #file.header + file.records * file.form.stride end

local function has_header(file, path)
  return files.size(path) >= #file.header and files.read(path, 0, #file.header) == file.header
end

--- Is the finished file there and sound? One that is not leaves its place; what is sound in it goes on as PATH.part.
--- Nil: interrupted.
local function find(run, file)
  local line = function(...) run.progress:line(...) end
  if not files.exists(file.path) then return false end
  if files.size(file.path) ~= whole_bytes(file) or not has_header(file, file.path) then
    line("teacher cache: %s is not what its name says (%d bytes; %d and another header are expected): it is made anew",
      file.path, files.size(file.path), whole_bytes(file))
    files.remove(file.path)
    return false
  end
  local started = C.pg_clock_seconds()
  local bad, found = unsound(file, file.path, file.records)
  if not bad then return nil end
  if found == 0 then
    line("teacher cache: %s, %d records, %s, checked in %.1f s", file.path, file.records, size_text(whole_bytes(file)),
      C.pg_clock_seconds() - started)
    return true
  end
  line("teacher cache: %s: %d of %d records are damaged: they are made anew", file.path, found, file.records)
  files.rename(file.path, file.path .. ".part")
  return false
end

-- ---- filling ----------------------------------------------------------------------------------------------------

--- The writer of PATH.part, once no other process has it; false where the file was finished meanwhile. Nil: interrupted.
local function writer_of(run, file)
  local said
  while true do
    local fine, writer = pcall(files.resume, file.path)
    if fine then
      if not files.exists(file.path) then return writer end
      writer:abort()
      return false
    end
    if not writer:find("another process writes it", 1, true) then error(writer, 0) end
    if not said then run.progress:line("teacher cache: another process fills %s: waiting for it", file.path) end
    said = true
    if interrupted() then return nil end
    ffi.C.poll(nil, 0, 200)
  end
end

--- Makes a writer's file begin with the header and end with a whole record. Returns the number of records, the set of
--- unsound ones, and how many they are. Nil: interrupted.
local function take_up(file, writer)
  local part = file.path .. ".part"
  if not has_header(file, part) or writer:bytes() > whole_bytes(file) then
    writer:truncate(0)
    writer:write(file.header)
    return 0, {}, 0
  end
  local have = math.floor((writer:bytes() - #file.header) / file.form.stride)
  writer:truncate(#file.header + have * file.form.stride)
  local bad, found = unsound(file, part, have)
  if not bad then return nil end
  return have, bad, found
end

---@class perigee.CacheFiller
local Filler = {}
Filler.__index = Filler

--- The program, its buffers and the writer; a pass takes as many images as one of the recipe's.
local function filler(run, file, writer)
  local recipe, batch = run.recipe, run.recipe.micro
  local plan, buffers = filling(recipe, file.form, batch, run.device), {}
  for k, bytes in ipairs(file.form.bytes) do buffers[k] = ffi.new("uint8_t[?]", bytes * batch) end
  local read = {}
  for _, slot in ipairs(plan.slots) do read[slot.name] = true end
  return setmetatable({
    file = file, writer = writer, batch = batch, buffers = buffers,
    executable = core.executable.new(plan, { purpose = "teacher", output_purpose = "teacher" }),
    record = ffi.new("uint8_t[?]", file.form.stride), data = recipe.data, read = read,
    device = run.device,
  }, Filler)
end

--- The data in their own order, all of them mirrored or none.
function Filler:open_loader(mirrored)
  local data = self.data
  local opened = loader.new {
    count = data.count, batch = self.batch, fields = data:fields(), sources = data.sources, shuffle = false,
    flip = mirrored and "always" or false, threads = 1, depth = 2,
    device = self.device,
  }
  for _, field in ipairs(data:fields()) do opened:want(field.name, self.read[field.name] or false) end
  return opened
end

--- Runs the teacher on a batch, whose first `count` images' records are numbered from `first`, and writes those that
--- `wanted(number)` asks for.
function Filler:fill(batch, first, count, wanted)
  local file, form, record = self.file, self.file.form, self.record
  local out = self.executable:run(batch)
  for k, field in ipairs(form.fields) do
    check(C.pg_tensor_read(tensor.handle(out[field.name]), self.buffers[k], form.bytes[k] * self.batch))
  end
  for n = 0, count - 1 do
    local number = first + n
    if wanted(number) then
      for k, bytes in ipairs(form.bytes) do ffi.copy(record + form.offsets[k], self.buffers[k] + n * bytes, bytes) end
      sum_place(file, record)[0] = record_sum(file, record, number)
      local at = #file.header + number * form.stride
      if at == self.writer:bytes() then self.writer:write(record, form.stride)
      else self.writer:write_at(at, ffi.string(record, form.stride)) end
    end
  end
end

function Filler:free()
  if self.loader then self.loader:close() end
  for _, t in pairs(self.executable.outputs) do t:free() end
  self.executable:free()
end

--- Shows how far it is: a bar on a terminal, a line every few seconds elsewhere.
local function shown(run, file)
  local started, last = C.pg_clock_seconds(), C.pg_clock_seconds()
  local progress, at_start = run.progress, nil
  return function(done)
    at_start = at_start or done
    local now = C.pg_clock_seconds()
    if now - last < (progress.terminal and 0.1 or 5) or done == at_start then return end
    last = now
    local rate = (done - at_start) / (now - started)
    progress:show(("teacher cache: record %d/%d  %.0f images/s  %s left"):format(done, file.records, rate,
      progress.duration((file.records - done) / rate)), done / file.records)
  end
end

--- Fills what is missing. False: interrupted.
local function fill(run, file, writer, have, bad)
  local self, show, passes = filler(run, file, writer), shown(run, file), file.form.images
  local function wanted(number) return number >= have or bad[number] == true end
  local function any_wanted(first, count)
    for number = first, first + count - 1 do
      if wanted(number) then return true end
    end
    return false
  end
  local function body()
    for pass = 0, passes - 1 do
      self.loader = self:open_loader(pass == 1)
      for index = 0, file.count - 1, self.batch do
        local first, count = pass * file.count + index, math.min(self.batch, file.count - index)
        if any_wanted(first, count) then
          if interrupted() then return false end
          if self.loader.step ~= index / self.batch - 1 then self.loader:seek(index / self.batch) end
          self:fill(self.loader:next(), first, count, wanted)
          show(first + count)
        end
      end
      self.loader:close()
    end
    return true
  end
  local fine, finished = pcall(body)
  self:free()
  if not fine then error(finished, 0) end
  return finished
end

--- Makes the file where it isn't there. False: interrupted; what was written stays for the next time.
local function make(run, file)
  local line = function(...) run.progress:line(...) end
  local writer = writer_of(run, file)
  if not writer then return writer == false end
  local have, bad, found = take_up(file, writer)
  if not have then return false end
  local missing, space = whole_bytes(file) - writer:bytes(), files.free_space((files.split(file.path)))
  if missing > space then
    writer:suspend()
    error(("cache_teacher: %s needs %s more, and its disk has %s free; set PERIGEE_CACHE to a folder on another, or train "
      .. "with cache_teacher = false"):format(file.path, size_text(missing), size_text(space)), 0)
  end
  line("teacher cache: %d images%s, %s each, %s in all, are kept in %s", file.count, mirror_text(file.form),
    size_text(file.form.stride), size_text(whole_bytes(file)), file.path)
  local damaged = found > 0 and (", %d of them damaged"):format(found) or ""
  if have > 0 then line("teacher cache: going on after %d records%s", have, damaged) end
  local started = C.pg_clock_seconds()
  local finished = fill(run, file, writer, have, bad)
  if not finished then
    writer:suspend()
    return false
  end
  writer:commit()
  local seconds, filled = C.pg_clock_seconds() - started, file.records - have + found
  line("teacher cache: filled in %s (%.0f images/s)", run.progress.duration(seconds), filled / math.max(seconds, 1e-9))
  return true
end

-- ---- for a run --------------------------------------------------------------------------------------------------

--- The loader's fields and sources of a whole file.
local function loader_part(file)
  local form, sources = file.form, {}
  for k, field in ipairs(form.fields) do
    sources[field.name] = { path = file.path, offset = #file.header + form.offsets[k], stride = form.stride,
                            mirrored = (form.images - 1) * file.count * form.stride }
  end
  return { fields = form.fields, sources = sources }
end

--- Finds or fills the file of a run whose teacher is materialised: { fields, sources } for its loaders. Nil: interrupted.
---@param form perigee.CacheLayout
function M.open(run, form)
  local recipe = run.recipe
  local header, folder = header_of(run, form), teacher_model.cache_folder() .. "/features"
  local count, name = recipe.data.count, recipe:teacher_model().name
  local file = {
    path = ("%s/%s-%s.cache"):format(folder, name, teacher_model.digest(header)), header = header,
    seed = C.pg_crc32(0, header, #header), form = form, count = count, records = count * form.images,
  }
  files.make_folder(folder)
  local there = find(run, file)
  if there == nil or (not there and not make(run, file)) then return nil end
  return loader_part(file)
end

return M
