--- Judges: encoders whose features of pictures are compared. A judge's features are the class token after the final
--- norm, which for a classifier are what its head reads; of an encoder without one, the mean of its patch tokens.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local models = require "perigee.models"
local recipes = require "perigee.recipe"
local teachers = require "perigee.stage.teachers"
local ops, tensor = core.ops, core.tensor

local BATCH = 50 -- pictures a pass

---@class perigee.Judge
---@field name string
---@field model perigee.Vit
---@field size integer[]   { height, width } that pictures are resized to
---@field device string
local Judge = {}
Judge.__index = Judge

local M = {}

local function new(name, model, options)
  if not model.features then
    core_ffi.fail("--features %s: a %s is not an encoder: it has no features", name, model.name or "model")
  end
  local size = options.size and { options.size, options.size } or model.image
  return setmetatable({ name = name, model = model, size = size, device = options.device }, Judge)
end

--- A run's teacher, its weights in place; of several, the one of that name. A teacher that is a recipe must have been
--- trained: by the run, which keeps it.
---@param name? string
local function teacher_of(run, name, options)
  local recipe = require("perigee.sampling.restore").recipe(run)
  if not recipe.teachers[1] then core_ffi.fail("--features teacher: the recipe of %s has no teacher", run) end
  if not name and recipe.teachers[2] then
    core_ffi.fail("--features teacher: the recipe of %s has several; say teacher:NAME, with one of %s", run,
      teachers.names(recipe.teachers))
  end
  local called = name and "teacher:" .. name or "teacher"
  local teacher = teachers.find(recipe.teachers, name, "--features teacher:" .. (name or "")).source
  if recipes.is_recipe(teacher) then
    local folder = require("perigee.teacher").trained(teacher)
      or core_ffi.fail("--features teacher: the teacher of %s, the recipe '%s', is not in the cache; it is trained "
        .. "when a run needs it",
        run, teacher.name)
    require("perigee.teacher").load_model(teacher.student, folder, "ema.student.",
      { dtype = "float32", device = options.device, purpose = "teacher" })
    return new(called, teacher.student, options)
  end
  teacher:load { dtype = "float32", device = options.device, purpose = "teacher" }
  return new(called, teacher, options)
end

--- A judge by what the command line calls it: "teacher" or, of several, "teacher:NAME" (of the run given), a run that
--- trained an encoder, or MODEL:WEIGHTS.
---@param text string
---@param run string     the folder or checkpoint whose teacher is meant
---@param options { device: string, size?: integer }  `size`: the pictures' side; by default what the model was made for
---@return perigee.Judge
function M.open(text, run, options)
  if text == "teacher" or text:match "^teacher:" then return teacher_of(run, text:match ":(.+)$", options) end
  local name, weights = text:match "^([%w_]+):(.+)$"
  if name then
    local model = models[name] { weights = weights }
    model:load { dtype = "float32", device = options.device, purpose = "teacher" }
    return new(name, model, options)
  end
  local recipe = require("perigee.sampling.restore").open(text, { device = options.device })
  return new(text:match "([^/]+)/*$", recipe.student, options)
end

--- Compiles `outputs(pixels)` -> a table of values [B,...] by name for uint8 pictures [BATCH,H,W,3]; pixels have the
--- model's dtype.
local function compile(model, device, shape, outputs)
  local p = core.program.new "judge"
  local pictures = p:input("pictures", { BATCH, shape[2], shape[3], shape[4] }, "uint8")
  local list, dtype = {}, (model.class_token or model.patch_embedding.weight).dtype
  local pixels = ops.images(pictures, { scale = 1 / 255, offset = 0, dtype = dtype })
  for name, value in pairs(p:trace(outputs, pixels)) do
    list[#list + 1] = { name = name, value = value }
  end
  return core.executable.compile(p, list, { purpose = "signal", device = device })
end

--- Runs a compiled program over pictures in batches, the last one filled up with black; `take(outputs, wanted, first)`
--- gets each, the outputs on the CPU. An interrupt ends it between two batches.
local function each(executable, pictures, take)
  for first = 0, pictures.shape[1] - 1, BATCH do
    if core_ffi.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
    tensor.tidy(function()
      local wanted = math.min(BATCH, pictures.shape[1] - first)
      local batch = pictures:narrow(1, first + 1, wanted):contiguous()
      if wanted < BATCH then
        local black = ops.fill({ BATCH - wanted, unpack(pictures.shape, 2) }, { value = 0, dtype = "uint8" })
        batch = ops.concat({ batch, black }, 1)
      end
      local outputs = {}
      for name, t in pairs(executable:run { pictures = batch:to(executable.plan.device) }) do
        outputs[name] = t:to "cpu"
      end
      take(outputs, wanted, first)
    end)
  end
  executable:free()
end

--- Features of pictures, uint8 [N,H,W,3]: float64 [N,D].
---@param pictures perigee.Tensor
---@return perigee.Tensor
function Judge:features(pictures)
  local n, width = pictures.shape[1], self.model.width
  local result = tensor.empty({ n, width }, "float64")
  local executable = compile(self.model, self.device, pictures.shape, function(pixels)
    if self.model.class_rows == 0 then
      return { features = ops.mean((self.model:features(pixels, { input = self.size })), 2) }
    end
    local _, extra = self.model:features(pixels, { input = self.size, class_token = true })
    return { features = extra.class_token }
  end)
  each(executable, pictures, function(out, wanted, first)
    result:narrow(1, first + 1, wanted):copy_(out.features:narrow(1, 1, wanted):contiguous():to "float64")
  end)
  return result
end

--- How a classifier does on pictures with labels int64 [N]: the share that it names right, and the mean cross-entropy.
---@param model perigee.Vit
---@param device string  where it is
---@return number accuracy, number cross_entropy
function M.classify(model, pictures, labels, device)
  local names, right, loss, n = tensor.to_host(labels), 0, 0, pictures.shape[1]
  local executable = compile(model, device, pictures.shape, function(pixels)
    return { logits = model:classify(pixels) }
  end)
  each(executable, pictures, function(out, wanted, first)
    local classes = out.logits.shape[2]
    local logs = tensor.to_host(out.logits:to("float64"):log_softmax(2))
    for k = 0, wanted - 1 do
      local label, best = tonumber(names[first + k]), 0
      for c = 1, classes - 1 do
        if logs[k * classes + c] > logs[k * classes + best] then best = c end
      end
      if best == label then right = right + 1 end
      loss = loss - logs[k * classes + label]
    end
  end)
  return right / n, loss / n
end

return M
