--- Archives written by hand, right ones and others.
local core = require "perigee.core.ffi"

local M = {}

function M.little(value, bytes)
  local text = ""
  for _ = 1, bytes do text, value = text .. string.char(value % 256), math.floor(value / 256) end
  return text
end

local little = M.little

--- A zip archive of { name, text, changes }: changes of the directory's entry by field.
function M.zip(list, changes)
  local body, directory, count = "", "", 0
  for _, entry in ipairs(list) do
    local name, text, c = entry[1], entry[2], entry[3] or {}
    local sizes = little(c.crc or 0, 4) .. little(c.packed or #text, 4) .. little(c.bytes or #text, 4)
    local fields = little(20, 2) .. little(c.flags or 0, 2) .. little(c.method or 0, 2) .. little(0, 4) .. sizes
      .. little(#name, 2) .. little(0, 2)
    directory = directory .. "PK\1\2" .. little(20, 2) .. fields .. little(0, 10) .. little(c.at or #body, 4) .. name
    body = body .. "PK\3\4" .. fields .. (c.own_name or name) .. text
    count = count + 1
  end
  changes = changes or {}
  return body .. directory .. "PK\5\6" .. little(0, 4) .. little(count, 2) .. little(changes.count or count, 2)
    .. little(changes.bytes or #directory, 4) .. little(changes.at or #body, 4) .. little(0, 2)
end

--- { crc = ... } of a text, for an entry whose sum is to be right.
function M.summed(text, changes)
  changes = changes or {}
  changes.crc = changes.crc or core.C.pg_crc32(0, text, #text)
  return changes
end

local function padded(text, bytes) return text .. ("\0"):rep(bytes - #text) end

--- A tar archive of { name, text, changes }: changes of the header by field.
function M.tar(list, changes)
  local out = {}
  for _, entry in ipairs(list) do
    local name, text, c = entry[1], entry[2], entry[3] or {}
    local header = padded(name, 100) .. "0000644\0" .. ("0000000\0"):rep(2)
      .. (c.size or ("%011o\0"):format(c.bytes or #text)) .. ("%011o\0"):format(0) .. "        " .. (c.kind or "0")
      .. ("\0"):rep(100) .. "ustar\00000" .. ("\0"):rep(80) .. padded(c.prefix or "", 155) .. ("\0"):rep(12)
    local sum = 0
    for k = 1, #header do sum = sum + header:byte(k) end
    header = header:sub(1, 148) .. ("%06o\0 "):format(sum + (c.sum or 0)) .. header:sub(157)
    out[#out + 1] = header .. text .. ("\0"):rep(-#text % 512)
  end
  return table.concat(out) .. (changes and changes.ending or ("\0"):rep(1024))
end

return M
