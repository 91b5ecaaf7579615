--- The teachers of a run: each in memory while a stage needs it, or, with the recipe's `cache_teacher`, only while the
--- files that take their place are filled.
local cache = require "perigee.teacher.cache"
local teachers = require "perigee.teacher"

---@class perigee.Teacher
---@field recipe perigee.Recipe
---@field device string
---@field progress perigee.Progress
---@field train? fun(recipe: perigee.Recipe, options: perigee.TrainOptions): perigee.Run, string  trains a teacher that
---  is itself a recipe
---@field ready table<perigee.RecipeTeacher, true?>  those whose models are materialised
---@field cache { fields: perigee.TeacherField[], sources: table }|false  files in place of the models
local Teacher = {}
Teacher.__index = Teacher

local M = {}

---@param options { device: string, progress: perigee.Progress, train?: function }
---@return perigee.Teacher
function M.new(recipe, options)
  return setmetatable({
    recipe = recipe, device = options.device, progress = options.progress, train = options.train, ready = {},
    cache = false,
  }, Teacher)
end

--- Materialises a model, from its file or by training it. False: interrupted.
---@param entry perigee.RecipeTeacher
function Teacher:materialise(entry)
  self.ready[entry] = self.ready[entry] or teachers.prepare(self, entry) or nil
  return self.ready[entry] == true
end

--- Random weights in place of a model's own, for measurements.
---@param entry perigee.RecipeTeacher
function Teacher:materialise_untrained(entry)
  entry.model.weights = nil
  entry.model:materialise { seed = self.recipe.seed, dtype = self.recipe.dtype, device = self.device,
    purpose = "teacher" }
  self.ready[entry] = true
end

--- Gives back the memory of all models but those in `keep`.
---@param keep? table<perigee.RecipeTeacher, true>
function Teacher:dematerialise(keep)
  for _, entry in ipairs(self.recipe.teachers) do
    if self.ready[entry] and not (keep and keep[entry]) then
      entry.model:dematerialise()
      self.ready[entry] = nil
    end
  end
end

local function materialise_all(self, wanted)
  for _, entry in ipairs(self.recipe.teachers) do
    if wanted[entry] and not self:materialise(entry) then return false end
  end
  return true
end

--- Finds or fills the files of the cache. False: interrupted.
local function fill_cache(self, wanted)
  local form = cache.layout(self.recipe)
  if not form then return true end -- losses that need a teacher and read nothing of it
  cache.check_size(self.recipe, form)
  if not materialise_all(self, wanted) then return false end
  self.cache = cache.open(self, form) or false
  self:dematerialise()
  return self.cache ~= false
end

--- Makes the teachers ready that the stages to come need, and gives back the memory of the others. False: interrupted.
---@param needed table<perigee.RecipeTeacher, true>
---@return boolean
function Teacher:provide(needed)
  if not next(needed) then self.cache = false end
  self:dematerialise(needed)
  if not next(needed) then return true end
  if self.recipe.cache_teacher then return self.cache ~= false or fill_cache(self, needed) end
  return materialise_all(self, needed)
end

--- For an error of a run that names a damaged record of the cache: sets its file aside, and adds to the message how to
--- continue.
function Teacher:explain(message)
  return self.cache and cache.set_aside(self.cache, message) or message
end

return M
