-- The official SiT (models.py): REPA's names; the last layer has as many rows again for a variance that is not used,
-- and time runs the other way: 1 is data, and the velocity points from noise to data.
return require("perigee.io.names").like(require "perigee.io.names.repa", {
  what = "the official SiT",
  of_model = "^SiT",
  outputs = 2,
  convert = {
    ["final.projection.weight"] = "sigma_and_sign",
    ["final.projection.bias"] = "sigma_and_sign",
    ["time_embedding.hidden.weight"] = "reversed_time",
  },
})
