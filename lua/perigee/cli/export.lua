--- perigee export: a run's weights for other programs.
local M = {
  summary = "write a run's weights for other programs",
  usage = "RUN|CHECKPOINT OUT.pt|OUT.safetensors --as NAMES [options]",
  description = "Writes the student of a run's newest checkpoint (or of the given one) under public names: sit for\n"
    .. "the official SiT, repa for REPA and HASTE, timm, dinov2, ... A .pt file holds { model, ema, steps },\n"
    .. "as those programs save, and loads by torch.load(..., weights_only=True); .safetensors holds one of\n"
    .. "the two.",
  options = {
    { name = "as", type = "string", help = "the table of names: sit, repa, timm, dinov2, dinov2_hf, ..." },
    { name = "ema", type = "boolean", default = true, help = "what .safetensors holds: the moving averages" },
  },
}

--- Projectors of feature alignment in a checkpoint, as REPA's models hold them: "projectors.0.0.weight".
local function add_projectors(tensors, file, head, names)
  local weights, number = require "perigee.io.weights", {}
  local count = 0
  for _, name in ipairs(file.names) do
    local loss, rest = name:match("^" .. head:gsub("%.", "%%.") .. "losses%.([^.]+)%.projector%.(.+)$")
    if loss then
      if not number[loss] then count, number[loss] = count + 1, count + 1 end
      local public = weights.public_name(names, ("projectors.%d.%s"):format(number[loss], rest))
      if public then tensors[public] = file:read(name) end
    end
  end
end

--- The student's tensors under public names, of the moving averages or of the weights.
local function student_tensors(path, names, ema)
  local weights = require "perigee.io.weights"
  local recipe, state, found = require("perigee.sampling.restore").open(path, { ema = ema })
  local family = require("perigee.io.names")[names].family
  if recipe.student.class_name ~= family then
    error(("the student of %s is a %s; the names %s are of a %s"):format(path, recipe.student.class_name, names,
      family or "model that is not here"), 0)
  end
  if family == "sit" and (recipe.student.learned_variance ~= (names == "dit")) then
    error(("the student of %s is %s"):format(path, names == "dit" and "a SiT; give --as sit or --as repa"
      or "a DiT, which predicts noise; give --as dit"), 0)
  end
  local tensors = weights.export(recipe.student, names)
  if names == "repa" then
    add_projectors(tensors, require("perigee.io.safetensors").open(found), ema and "ema." or "", names)
  end
  return tensors, recipe, state
end

function M.run(options)
  local path, out, names = options[1], options[2], options.as
  if not path or not out then error("perigee export needs a run and where to write: perigee export " .. M.usage, 0) end
  if not names then error("perigee export needs --as NAMES, the names to write", 0) end
  local tensors, recipe, state = student_tensors(path, names, options.ema)
  if out:match "%.safetensors$" then
    require("perigee.io.safetensors").save(out, tensors, { names = names, recipe = recipe.name,
      step = tostring(state.step), weights = options.ema and "ema" or "model" })
  elseif out:match "%.pt$" then
    local other = student_tensors(path, names, not options.ema)
    require("perigee.io.pytorch_save").save(out, { steps = state.step, names = names,
      ema = options.ema and tensors or other, model = options.ema and other or tensors })
  else error(out .. " ends in neither .pt nor .safetensors", 0) end
  print(("%s: %s of step %d (names %s)"):format(out, recipe.name, state.step, names))
  return 0
end

return M
