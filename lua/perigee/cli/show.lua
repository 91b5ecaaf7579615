--- perigee show: the program of a stage as text.
local M = {
  summary = "print a stage's program",
  usage = "RECIPE [options]",
  description = "Prints the calls of a stage's step: inputs, tensors, operations, outputs. No data, weights or\n"
    .. "memory is needed.",
  recipe = true,
  options = {
    { name = "stage", type = "string", help = "name of the stage (default: the first)" },
    { name = "fuse", type = "boolean", default = true, help = "as it runs, with operations fused",
      off = "as it is recorded, before operations are fused" },
    { name = "memory", type = "boolean", default = false, help = "say where each value lies in the arena" },
    { name = "forward", type = "boolean", default = false, help = "the losses only, without their gradients" },
  },
}

function M.run(options)
  local is_frozen = require("perigee.nn.module").is_frozen
  local recipe = options.recipe
  if not require("perigee.recipe").is_recipe(recipe) then error(options.recipe_path .. " returns no recipe", 0) end
  recipe:validate()
  local stage = recipe.stages[1]
  if options.stage then
    stage = nil
    local names = {}
    for _, s in ipairs(recipe.stages) do
      names[#names + 1] = s.name
      if s.name == options.stage then stage = s end
    end
    if not stage then
      error(("%s has no stage '%s'; it has %s"):format(options.recipe_path, options.stage,
        table.concat(names, ", ")), 0)
    end
  end
  local names, trained = {}, {}
  local function name(prefix, module)
    module:assume_dtype(recipe.dtype)
    for _, list in ipairs { module:named_parameters(), module:named_buffers() } do
      for _, entry in ipairs(list) do names[entry.tensor] = prefix .. "." .. entry.name end
    end
  end
  for _, m in ipairs(recipe:trained_modules(stage)) do
    name(m.name, m.module)
    for _, entry in ipairs(m.module:named_parameters()) do
      if not is_frozen(entry.tensor) and not options.forward then
        trained[#trained + 1] = { name = m.name .. "." .. entry.name, tensor = entry.tensor }
      end
    end
  end
  for _, entry in ipairs(recipe.teachers) do
    name(recipe.teachers[2] and "teachers." .. entry.name or "teacher", entry.model)
  end
  local plan = require("perigee.stage.program").plan(recipe, stage,
    { batch = recipe.micro, parameters = trained, fuse = options.fuse })
  require("perigee.base.printable").print(require("perigee.core.text").plan(plan,
    { names = names, memory = options.memory }))
  return 0
end

return M
