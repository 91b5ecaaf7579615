-- A released decoder of TAESD or of its kin: the layers of diffusers' decoder, counted from 1, for the limit on latents
-- is the first one there.
local rows = {
  what = "the decoder of a tiny autoencoder (TAESD) as it is released",
  family = "autoencoder_tiny",
  marks = { "19.weight", "1.weight", "3.conv.0.weight", "17.weight" },
}
for _, pair in ipairs(require "perigee.io.names.autoencoder_tiny") do
  local layer, rest = pair[2]:match "^decoder%.layers%.(%d+)(.*)$"
  if layer then rows[#rows + 1] = { pair[1], layer + 1 .. rest } end
end
return rows
