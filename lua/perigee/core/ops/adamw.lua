--- One step of AdamW in place (kernels/adamw/adamw.h): ops.adamw { parameters, first_moment, second_moment, average,
--- working, gradient, hyper, square_sum }, average and working being optional.
local update = require "perigee.core.update"

return { adamw = update.define { name = "adamw", moments = { "first_moment", "second_moment" }, flops = 15 } }
