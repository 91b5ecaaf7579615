--- The project's root: this file lies three folders below it.
return debug.getinfo(1, "S").source:sub(2):match "^(.*)/lua/perigee/core/home%.lua$" or "."
