--- A cached teacher: the files that stand for its forward pass, one for each value that the losses read, in it a record
--- for every image and, where the data flip, one for its mirror image (cache_file.lua). A run finds them, or fills them
--- before its first step (cache_filler.lua); then no step runs the teacher. Runs whose losses read other values share
--- the files of the values that both read.
local ffi = require "ffi"
local cache_file = require "perigee.teacher.cache_file"
local cache_filler = require "perigee.teacher.cache_filler"
local core_ffi = require "perigee.core.ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local owner = require "perigee.io.owner"
local program_text = require "perigee.core.text"
local size = require "perigee.base.size"
local stage_program = require "perigee.stage.program"
local tables = require "perigee.base.tables"
local teacher_model = require "perigee.teacher"
local teachers = require "perigee.stage.teachers"
local tensor = require "perigee.core.tensor"

local C = core_ffi.C
local M = {}

-- ---- size and price ---------------------------------------------------------------------------------------------

---@class perigee.CacheLayout
---@field fields perigee.TeacherField[]  one a file
---@field bytes integer[]    of a field's value
---@field strides integer[]  bytes from one of its records to the next
---@field each integer       bytes of an image's records in all files
---@field images integer     records an image: 2 where the data flip

--- Where everything lies in the files; nil where no stage reads anything of a teacher.
---@return perigee.CacheLayout?
function M.layout(recipe)
  local form = { fields = stage_program.teacher_fields(recipe), bytes = {}, strides = {}, each = 0,
                 images = recipe.data.flip and 2 or 1 }
  if #form.fields == 0 then return nil end
  for k, field in ipairs(form.fields) do
    form.bytes[k] = layout.numel(field.shape) * core_ffi.dtype_bytes[field.dtype]
    form.strides[k] = cache_file.stride(form.bytes[k])
    form.each = form.each + form.strides[k]
  end
  return form
end

--- Bytes of all files for `count` images.
local function all_bytes(form, count)
  local bytes = 0
  for _, stride in ipairs(form.strides) do bytes = bytes + cache_file.size(count * form.images, stride) end
  return bytes
end

--- The cost of a cache: bytes an image, bytes of the files and seconds to fill them, the latter two where the number of
--- images is known. Nothing is allocated.
---@param seconds_of fun(calls: table[]): number  the time of a program's calls
function M.price(recipe, form, seconds_of)
  local price = { record = form.each, images = form.images, fields = #form.fields }
  if recipe.data.count then
    local batches = math.ceil(recipe.data.count / recipe.micro) * form.images
    price.records = recipe.data.count * form.images
    price.bytes = all_bytes(form, recipe.data.count)
    price.seconds = seconds_of(cache_filler.plan(recipe, form.fields, recipe.micro, "cpu").calls) * batches
  end
  return price
end

--- Refuses files that the recipe does not allow, before anything is made ready for them.
function M.check_size(recipe, form)
  local bytes, limit = all_bytes(form, recipe.data.count), recipe.cache_teacher.limit_gib * 2 ^ 30
  if bytes > limit then
    error(("cache_teacher: %d images%s of %s each are %s, more than the limit of %s; raise it with cache_teacher = "
      .. "{ limit_gib = %d }, keep less with precision = \"bf16\", or train with cache_teacher = false"):format(
      recipe.data.count, cache_file.mirrors(form.images), size.text(form.each), size.text(bytes), size.text(limit),
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

--- The encoder that a field is of.
local function model_of(recipe, field) return teachers.find(recipe.teachers, field.teacher, "cache_teacher").model end

--- The header's bytes of a field's file. The teacher must be materialised.
local function header_of(run, form, k, known)
  local recipe, field = run.recipe, form.fields[k]
  local alone = tables.merged(field, { name = "teacher " .. field.tap }) -- by no name of the recipe's
  local plan, teacher = cache_filler.plan(recipe, { alone }, 1, run.device), model_of(recipe, field)
  return cache_file.header {
    teacher = teacher.name, settings = teacher.settings,
    program = teacher_model.digest(program_text.plan(plan, { cost = false })),
    tensors = teacher_model.digest(tensor_sums(plan, known)), data = recipe.data:digest(), count = recipe.data.count,
    images = form.images, value = { name = field.tap, dtype = field.dtype, shape = field.shape },
    stride = form.strides[k], tf32 = recipe.tf32 or nil,
    device = run.device, isa = ffi.string(C.pg_cpu_isa()), version = ffi.string(C.pg_version()),
  }
end

-- ---- for a run --------------------------------------------------------------------------------------------------

--- The files of a run, in the order of their paths: processes that wait for one another do so in the same order.
---@return perigee.CacheFile[]
local function files_of(run, form)
  local recipe, cache, list, known = run.recipe, teacher_model.trusted_cache(), {}, {}
  local folder = cache .. "/features"
  files.make_folder(folder)
  for k, field in ipairs(form.fields) do
    local header = header_of(run, form, k, known)
    list[k] = cache_file.new {
      path = ("%s/%s-%s-%s.cache"):format(folder, model_of(recipe, field).name, field.tap:gsub("[^%w]+", "-"),
        teacher_model.digest(header)),
      header = header, field = field, bytes = form.bytes[k], stride = form.strides[k], count = recipe.data.count,
      images = form.images,
    }
    for _, ending in ipairs { "", ".part" } do owner.expect_trusted(cache, list[k].path .. ending) end
  end
  table.sort(list, function(a, b) return a.path < b.path end)
  return list
end

--- Is the finished file there? A file of its name that cannot be it is removed.
local function find(run, file)
  if not files.exists(file.path) then return false end
  if not file:is_whole() then
    run.progress:line("teacher cache: %s is not what its name says (%d bytes; %d and another header are expected): it "
      .. "is made again", file.path, files.size(file.path), file:whole_bytes())
    files.remove(file.path)
    return false
  end
  run.progress:line("teacher cache: %s, %d records, %s", file.path, file.records, size.text(file:whole_bytes()))
  return true
end

--- Finds or fills the files of a run whose teachers are materialised: { fields, sources } for its loaders. Nil:
--- interrupted.
---@param form perigee.CacheLayout
function M.open(run, form)
  local missing, sources = {}, {}
  for _, file in ipairs(files_of(run, form)) do
    if not find(run, file) then missing[#missing + 1] = file end
    sources[file.field.name] = file:source()
  end
  if #missing > 0 and not cache_filler.make(run, missing) then return nil end
  return { fields = form.fields, sources = sources }
end

--- After an error of a run: where it says that a record is damaged, the file leaves its place, and the next start makes
--- the record again. Returns the error, with a word about that.
function M.set_aside(cache, message)
  if type(message) ~= "string" or not message:find ": record %d+ is damaged: " then return message end
  for _, source in pairs(cache.sources) do
    if message:find(source.path .. ": ", 1, true) and files.exists(source.path) then
      files.rename(source.path, source.path .. ".part")
      return message
        .. "; start the run again, with --resume if it has a checkpoint: damaged records are computed again"
    end
  end
  return message
end

return M
