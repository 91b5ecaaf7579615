-- A released encoder of TAESD or of its kin: the layers of diffusers' encoder without a word before them.
local rows = {
  what = "the encoder of a tiny autoencoder (TAESD) as it is released",
  family = "autoencoder_tiny",
  marks = { "14.weight", "0.weight", "1.conv.0.weight", "10.weight" },
}
for _, pair in ipairs(require "perigee.io.names.autoencoder_tiny") do
  local theirs = pair[2]:match "^encoder%.layers%.(.*)$"
  if theirs then rows[#rows + 1] = { pair[1], theirs } end
end
return rows
