-- MoCo v3: timm's names; ViT-L's checkpoint misspells four layers.
local aliases = {}
for name, misspelt in pairs {
  ["blocks.13.norm1"] = "blocks.13.norm13", ["blocks.13.mlp.fc1"] = "blocks.13.mlp.fc13",
  ["blocks.14.norm2"] = "blocks.14.norm14", ["blocks.14.mlp.fc2"] = "blocks.14.mlp.fc14",
} do
  for _, part in ipairs { ".weight", ".bias" } do aliases[name .. part] = misspelt .. part end
end

return require("perigee.io.names").like(require "perigee.io.names.timm", {
  what = "MoCo v3",
  ignored = { "head.", "fc." },
  aliases = aliases,
  fixed = { pos_embed = "position" },
})
