--- Models by the names that recipes use. A file is a family: lua/perigee/models/sit.lua returns a table of constructors
--- whose names begin with the file's: sit, sit_s_2, sit_xl_2, ...

---@class perigee.models
---@field [string] fun(options?: table): perigee.Module  a model that another folder perigee/models/ adds

return require("perigee.core.room").open { module = "perigee.models", what = "model", families = true }
