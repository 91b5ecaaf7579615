--- The terminal on standard output.
local ffi = require "ffi"
ffi.cdef [[
int isatty(int fd);
struct pg_terminal_size { unsigned short rows, columns, width, height; };
int ioctl(int fd, unsigned long request, ...);
]]

local TIOCGWINSZ = 0x5413 -- on Linux, x86 and arm

local M = {}

function M.is_terminal() return ffi.C.isatty(1) == 1 end

--- Columns and rows; 80 and 24 where it does not say.
---@return integer columns, integer rows
function M.size()
  local size = ffi.new "struct pg_terminal_size"
  if ffi.C.ioctl(1, TIOCGWINSZ, size) ~= 0 or size.columns == 0 then return 80, 24 end
  return size.columns, size.rows
end

return M
