--- Members of archives where they lie: what zip.lua, tar.lua and safetensors' files tell, in the runtime's words.
local ffi = require "ffi"
local core = require "perigee.core.ffi"

local C, check = core.C, core.check
local M = {}

---@class perigee.Member
---@field offset integer
---@field packed integer    bytes in the file
---@field bytes integer     as unpacked
---@field deflated integer  1 or 0
---@field crc? integer      CRC-32 of the unpacked bytes, which is checked
---@field summed? integer   1 where there is one
---@field archive? integer  which of several files, from 0

--- Whether a member's name is none, or would lead to another folder if it were unpacked.
function M.leads_elsewhere(name)
  return name == "" or name:find "%z" ~= nil or name:sub(1, 1) == "/"
    or ("/" .. name .. "/"):find("/../", 1, true) ~= nil
end

local MOST = 2 ^ 30 -- bytes of a member that is read as a text

--- A member's bytes; `name` is what an error calls it.
---@param archive string
---@param name string
---@param member perigee.Member
---@return string
function M.read(archive, name, member)
  if member.bytes > MOST then core.fail("%s: %s: it is larger than 1 GiB", archive, name) end
  if member.deflated == 1 and member.bytes > 1032 * member.packed then -- before memory is taken for it
    core.fail("%s: %s: its directory says more bytes than its packed ones can hold", archive, name)
  end
  local buffer = ffi.new("char[?]", math.max(member.bytes, 1))
  check(C.pg_member_read(archive, name, ffi.new("pg_place", member), buffer))
  return ffi.string(buffer, member.bytes)
end

--- An array of pg_place: member_at(k) of k from 1 to `count`.
---@param count integer
---@param member_at fun(k: integer): perigee.Member
---@return ffi.cdata*
function M.array(count, member_at)
  local places = ffi.new("pg_place[?]", math.max(count, 1))
  for k = 1, count do places[k - 1] = member_at(k) end
  return places
end

return M
