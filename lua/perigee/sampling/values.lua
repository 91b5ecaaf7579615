--- The values of a student's inputs for samples by number: sample k has its own, whatever the batch size.
---
--- Labels are as the settings' `labels` says. Every other input is what `conditions` says of it:
---
---   "data", the default; "test"     sample k has record k of that data set, from the first again after the last
---   "data:17", "test:3,1"           these records in turn, numbered from 0
---   0.5; { 0, 1 }                   the number; the numbers of one sample
---   "text.npy", "all.npz"           an array [n,...] in turn, or one sample's; of an .npz that of the input's name
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local ops = require "perigee.core.ops"
local sampling = require "perigee.recipe.sampling"
local tensor = require "perigee.core.tensor"

local M = {}

--- Labels of samples first .. first+count−1 (numbered from 0): "balanced" goes round the classes, "drawn" draws each
--- uniformly from (seed, number), a list is used in turn.
---@return perigee.Tensor  int64 [count]
function M.labels(how, first, count, classes, seed)
  if how == "drawn" then
    local state = tensor.tensor({ seed, 0, first }, "int64")
    return ops.random_integers({ count }, { state = state, purpose = "sample label", high = classes })
  end
  local list = {}
  for k = 1, count do
    list[k] = type(how) == "table" and how[(first + k - 1) % #how + 1] or (first + k - 1) % classes
  end
  return tensor.tensor(list, { count }, "int64")
end

-- ---- where one input's values come from: a function (numbers) -> [#numbers,...] -------------------------------------

--- Records of a data set.
---@param what string   "sample: conditions.text"
local function from_data(what, recipe, source, condition)
  local data = recipe[source.data]
  if not data then core.fail("%s: the recipe names no `%s` data", what, source.data) end
  local field
  for _, candidate in ipairs(data:fields()) do
    if candidate.name == condition.name then field = candidate end
  end
  if not field or field.dtype ~= condition.dtype or not layout.same_shape(field.shape, condition.shape) then
    core.fail("%s: the data set '%s' has no field '%s' of %s %s", what, data.name, condition.name, condition.dtype,
      core.shape_text(condition.shape))
  end
  local reader
  return function(numbers)
    reader = reader or data:reader { condition.name }
    if source.records then
      local chosen = {}
      for k, number in ipairs(numbers) do chosen[k] = source.records[number % #source.records + 1] end
      numbers = chosen
    end
    for _, number in ipairs(source.records or {}) do
      if number >= data.count then
        core.fail("%s: record %d of the data set '%s', which has %d; they count from 0", what, number, data.name,
          data.count)
      end
    end
    return reader:read(numbers)[condition.name]
  end, function() if reader then reader:close() end end
end

--- One value for all samples.
local function from_numbers(what, numbers, condition)
  local floating = core.is_floating[condition.dtype]
  local list = type(numbers) == "number" and { numbers } or numbers
  for _, number in ipairs(list) do
    if not floating and number % 1 ~= 0 then core.fail("%s is %g; its values are %s", what, number, condition.dtype) end
  end
  local wanted = layout.numel(condition.shape)
  if type(numbers) == "table" and #numbers ~= wanted then
    core.fail("%s: %d numbers; one sample's are %d, %s", what, #numbers, wanted, core.shape_text(condition.shape))
  end
  return function(samples)
    local shape = { #samples, unpack(condition.shape) }
    if type(numbers) == "number" then return ops.fill(shape, { value = numbers, dtype = condition.dtype }) end
    return tensor.tensor(numbers, condition.shape, condition.dtype):expand(shape):contiguous()
  end
end

--- Rows of an array in a file.
local function from_file(what, path, condition)
  if not files.exists(path) then
    core.fail("%s: no file %s; expected a number, a .npy or .npz file, data, or data:RECORD", what, path)
  end
  local header = path:match "%.npz$" and npz.header(path, condition.name) or npy.header(path)
  local shape, expected = header.shape, condition.shape
  local one = layout.same_shape(shape, expected)
  local floats = core.is_floating[header.dtype] and core.is_floating[condition.dtype]
  if not one and not (#shape == #expected + 1 and layout.same_shape({ unpack(shape, 2) }, expected))
    or not (floats or header.dtype == condition.dtype) or shape[1] == 0 then
    core.fail("%s: %s is %s %s; expected %s %s, or [n,...] of that", what, path, header.dtype, core.shape_text(shape),
      condition.dtype, core.shape_text(expected))
  end
  local count, bytes = one and 1 or shape[1], layout.numel(expected) * core.dtype_bytes[header.dtype]
  return function(numbers)
    local rows = tensor.empty({ #numbers, unpack(expected) }, header.dtype)
    for k, number in ipairs(numbers) do
      files.read_tensor(path, header.offset + number % count * bytes, rows:narrow(1, k, 1))
    end
    return rows:to(condition.dtype)
  end
end

---@return fun(numbers: integer[]): perigee.Tensor, fun()|nil  and what ends it
local function source_of(what, recipe, given, condition)
  what = ("%s: conditions.%s"):format(what, condition.name)
  given = given == nil and "data" or given
  if type(given) ~= "string" then return from_numbers(what, given, condition) end
  local source = sampling.records_of(given)
  if source then return from_data(what, recipe, source, condition) end
  return from_file(what, given, condition)
end

-- ---- all of them ------------------------------------------------------------------------------------------------

---@class perigee.SampleValues
---@field settings perigee.SampleSettings
---@field classes integer
---@field sources table<string, fun(numbers: integer[]): perigee.Tensor>
---@field endings fun()[]
local Values = {}
Values.__index = Values

--- The sources of a student's inputs; an error, which begins with `what`, where one has other values than the input's.
---@param what string
---@param list perigee.Condition[]  of stage/conditions.lua
---@param settings perigee.SampleSettings  in full
---@return perigee.SampleValues
function M.open(what, recipe, list, settings)
  local self = setmetatable({ settings = settings, classes = recipe.student.classes or 1, sources = {}, endings = {} },
    Values)
  local given = settings.conditions or {}
  for _, condition in ipairs(list) do
    local name = condition.name
    if name ~= "labels" or settings.labels == "data" then
      self.sources[name], self.endings[#self.endings + 1] = source_of(what, recipe, given[name], condition)
    end
  end
  return self
end

--- The values of samples first ... first + count − 1, numbered from 0: [count,...] by name; labels in any case.
---@return table<string, perigee.Tensor>
function Values:of(first, count)
  local numbers, settings, values = {}, self.settings, {}
  for k = 1, count do numbers[k] = first + k - 1 end
  for name, read in pairs(self.sources) do values[name] = read(numbers) end
  values.labels = values.labels or M.labels(settings.labels, first, count, self.classes, settings.seed)
  return values
end

function Values:close()
  for _, ending in ipairs(self.endings) do ending() end
end

--- The errors of open(), without reading a value.
function M.check(what, recipe, list, settings) M.open(what, recipe, list, settings):close() end

return M
