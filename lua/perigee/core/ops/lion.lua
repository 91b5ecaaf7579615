--- One step of Lion in place (kernels/lion/lion.h): ops.lion { parameters, moment, average, working, gradient, hyper,
--- square_sum }, average and working being optional.
local update = require "perigee.core.update"

return { lion = update.define { name = "lion", moments = { "moment" }, flops = 11 } }
