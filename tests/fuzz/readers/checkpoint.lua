--- A checkpoint's metadata: the input is the text under "perigee".
local bytes = require "perigee.base.bytes"
local check = require "tests.fuzz.check"
local checkpoint = require "perigee.record.checkpoint"
local files = require "perigee.io.files"
local json = require "perigee.io.json"

return { file = "x.json", read = function(text, path)
  local printable = text:gsub("[^\n\32-\126]", "?")
  local header = json.encode { __metadata__ = { perigee = printable } }
  local read = files.read
  local whole = bytes.little(#header, 8) .. header
  -- in memory: no reader writes
  files.read = function(_, offset, count) return whole:sub((offset or 0) + 1, (offset or 0) + (count or #whole)) end
  local size = files.size
  files.size = function() return #whole end
  local fine, state = pcall(checkpoint.open, path)
  files.read, files.size = read, size
  if not fine then error(state, 0) end
  check.demand(type(state) == "table" and state.format == checkpoint.format, "no state")
end }
