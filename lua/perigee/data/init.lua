--- Data sets: pg.data.NAME is what lua/perigee/data/NAME.lua returns, a function from options to a data set.
return require("perigee.core.room").open { module = "perigee.data", what = "data set" }
