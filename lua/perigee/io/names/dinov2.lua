-- DINOv2's own releases: timm's names, but for register tokens.
local made = require("perigee.io.names").like(require "perigee.io.names.timm", {
  what = "DINOv2 as its authors release it",
  ignored = { "mask_token", "head.", "linear_head." },
})
for k, pair in ipairs(made) do
  if pair[1] == "register_tokens" then made[k] = { "register_tokens", "register_tokens" } end
end
return made
