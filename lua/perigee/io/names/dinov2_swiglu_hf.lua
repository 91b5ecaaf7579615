-- DINOv2's giant as Hugging Face's transformers save it.
local made = require("perigee.io.names").like(require "perigee.io.names.dinov2_hf", {
  what = "DINOv2's giant as Hugging Face saves it",
})
for k, pair in ipairs(made) do
  if type(pair[2]) == "string" then
    made[k] = { pair[1], (pair[2]:gsub("mlp%.fc1", "mlp.weights_in"):gsub("mlp%.fc2", "mlp.weights_out")) }
  end
end
return made
