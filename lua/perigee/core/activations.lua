--- The activation functions' numbers, the attribute `kind` of their kernels.
return require("perigee.core.list").read("kernels/activation/kinds.h", { "PG_ACTIVATIONS" }, 1)
