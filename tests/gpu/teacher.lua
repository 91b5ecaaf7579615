--- Writes random weights for a recipe's teacher under timm's names, so that runs on two devices share one.
---
---   perigee run tests/gpu/teacher.lua RECIPE FILE [the recipe's options]
local load = require("perigee.recipe.load").load
local public = require "perigee.io.weights"
local safetensors = require "perigee.io.safetensors"

local path, file = arg[1], arg[2]
if not file then error("usage: perigee run tests/gpu/teacher.lua RECIPE FILE [the recipe's options]", 0) end
local teacher = load(path, { arguments = { unpack(arg, 3) } }).value.teacher
teacher.weights = nil
teacher:materialise { seed = 1, dtype = "float32", purpose = "teacher" }
local tensors = {}
for _, entry in ipairs(public.public_parameters(teacher, "timm")) do
  tensors[entry.name] = entry.parameter:reshape(entry.shape)
end
safetensors.save(file, tensors)
