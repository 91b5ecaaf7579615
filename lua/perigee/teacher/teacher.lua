--- The teacher of a run: in memory while a stage needs it, or, with the recipe's `cache_teacher`, only while the files
--- that take its place are filled.
local cache = require "perigee.teacher.cache"
local teachers = require "perigee.teacher"

---@class perigee.Teacher
---@field recipe perigee.Recipe
---@field device string
---@field progress perigee.Progress
---@field train? fun(recipe: perigee.Recipe, options: perigee.TrainOptions): perigee.Run, string  trains a teacher that
---  is itself a recipe
---@field model perigee.Vit|false
---@field ready boolean   the model is materialised
---@field cache { fields: perigee.TeacherField[], sources: table }|false  files in place of the model
local Teacher = {}
Teacher.__index = Teacher

local M = {}

---@param options { device: string, progress: perigee.Progress, train?: function }
---@return perigee.Teacher
function M.new(recipe, options)
  return setmetatable({
    recipe = recipe, device = options.device, progress = options.progress, train = options.train,
    model = recipe:teacher_model() or false, ready = false, cache = false,
  }, Teacher)
end

--- Materialises the model, from its file or by training it. False: interrupted.
function Teacher:materialise()
  self.ready = teachers.prepare(self)
  return self.ready
end

--- Random weights in place of the model's own, for measurements.
function Teacher:materialise_untrained()
  self.model.weights = nil
  self.model:materialise { seed = self.recipe.seed, dtype = self.recipe.dtype, device = self.device,
    purpose = "teacher" }
  self.ready = true
end

function Teacher:dematerialise()
  if self.ready then self.model:dematerialise() end
  self.ready = false
end

--- Finds or fills the files of the cache. False: interrupted.
function Teacher:fill_cache()
  local form = cache.layout(self.recipe)
  if not form then return true end -- losses that need a teacher and read nothing of it
  cache.check_size(self.recipe, form)
  if not self:materialise() then return false end
  self.cache = cache.open(self, form) or false
  self:dematerialise()
  return self.cache ~= false
end

--- Makes the teacher ready for the stages to come, or gives its memory back if none of them needs it. False:
--- interrupted.
---@param needed boolean
---@return boolean
function Teacher:provide(needed)
  if not self.model then return true end
  if not needed then
    self.cache = false
    self:dematerialise()
    return true
  end
  if self.recipe.cache_teacher then return self.cache ~= false or self:fill_cache() end
  return self.ready or self:materialise()
end

--- For an error of a run that names a damaged record of the cache: sets its file aside, and adds to the message how to
--- continue.
function Teacher:explain(message)
  return self.cache and cache.set_aside(self.cache, message) or message
end

return M
