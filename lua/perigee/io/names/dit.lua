-- The official DiT (models.py): REPA's names; the last layer has as many rows again for the variance.
return require("perigee.io.names").like(require "perigee.io.names.repa", {
  what = "the official DiT",
  of_model = "^DiT",
  outputs = 2,
  convert = { ["final.projection.weight"] = "sigma", ["final.projection.bias"] = "sigma" },
  note = "DiT predicts the noise at times 0 to 999; a SiT takes its weights as first values for training, and does not "
    .. "compute the same function",
})
