--- A run's log as TensorBoard reads it: one file events.out.tfevents.* in the run's folder, records of protocol buffers
--- (tensorflow/core/util/event.proto, summary.proto; record_writer.cc). Numbers are scalars under their names of
--- record/numbers.lua, with a slash for the first dot; pictures of samples are images; what happened is text.
local bit = require "bit"
local ffi = require "ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local little = require("perigee.base.bytes").little
local numbers = require "perigee.record.numbers"
local tables = require "perigee.base.tables"

-- ---- records -----------------------------------------------------------------------------------------------------

local TABLE = ffi.new "uint32_t[256]" -- CRC-32C (Castagnoli), reflected
for n = 0, 255 do
  local c = n
  for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(c, 1) == 1 and 0x82F63B78 or 0) end
  TABLE[n] = c
end

local function crc32c(text)
  local c, bytes = 0xFFFFFFFF, ffi.cast("const uint8_t *", text)
  for k = 0, #text - 1 do c = bit.bxor(bit.rshift(c, 8), TABLE[bit.band(bit.bxor(c, bytes[k]), 255)]) end
  return bit.bnot(c)
end

--- A text's CRC as records have it: turned by 15 bits and moved, so that a CRC of a CRC says something.
local function masked(text)
  local c = crc32c(text)
  return little((bit.bor(bit.rshift(c, 15), bit.lshift(c, 17)) % 2 ^ 32 + 0xa282ead8) % 2 ^ 32, 4)
end

local function record(text)
  local length = little(#text, 8)
  return length .. masked(length) .. text .. masked(text)
end

-- ---- protocol buffers --------------------------------------------------------------------------------------------

local function varint(value)
  local parts = {}
  repeat
    local low = value % 128
    value = (value - low) / 128
    parts[#parts + 1] = string.char(low + (value > 0 and 128 or 0))
  until value == 0
  return table.concat(parts)
end

local function bytes_of(kind, value) return ffi.string(ffi.new(kind .. "[1]", value), ffi.sizeof(kind)) end

local function whole(field, value) return varint(field * 8) .. varint(value) end
local function real(field, value) return varint(field * 8 + 1) .. bytes_of("double", value) end
local function single(field, value) return varint(field * 8 + 5) .. bytes_of("float", value) end
local function text(field, value) return varint(field * 8 + 2) .. varint(#value) .. value end

local START = whole(1, 1) -- SessionLog: what was written for this and later steps counts no more

local function scalar(name, value) return text(5, text(1, text(1, name) .. single(2, value))) end

local function sentence(name, value)
  local DT_STRING, dimension = 7, text(2, whole(1, 1))
  local tensor = whole(1, DT_STRING) .. text(2, dimension) .. text(8, value)
  return text(5, text(1, text(1, name) .. text(8, tensor) .. text(9, text(1, text(1, "text")))))
end

--- A PNG as it is; its size stands in its header.
local function picture(name, png)
  local function number(at) return png:byte(at) * 2 ^ 24 + png:byte(at + 1) * 2 ^ 16 + png:byte(at + 2) * 256
    + png:byte(at + 3) end
  local image = whole(1, number(21)) .. whole(2, number(17)) .. whole(3, 3) .. text(4, png)
  return text(5, text(1, text(1, name) .. text(4, image)))
end

-- ---- what events become ------------------------------------------------------------------------------------------

--- What a person should read of an event, or nil.
local function words_of(event)
  local kind = event.event
  if kind == "stage" then
    return ("stage **%s** begins%s; until %s"):format(event.stage,
      event.reason and ("; %s ends: %s"):format(event.from, event.reason) or "", event.policy)
  elseif kind == "end" then return "the run ends: " .. tostring(event.reason)
  elseif kind == "warning" then return "warning: " .. tostring(event.message)
  elseif kind == "policy" then return "a policy failed: " .. tostring(event.error)
  elseif kind == "change" then
    return ("`%s = %s` by hand, before %s"):format(tostring(event.path), tostring(event.text),
      type(event.before) == "table" and json.encode(event.before) or tostring(event.before))
  elseif kind == "start" or kind == "resume" then
    local parts = {}
    for _, key in ipairs(tables.sorted_keys(event)) do
      if key ~= "event" and type(event[key]) ~= "table" then
        parts[#parts + 1] = ("%s %s"):format(key, tostring(event[key]))
      end
    end
    return kind .. ": " .. table.concat(parts, ", ")
  end
end

---@class perigee.Board
---@field folder string
---@field path string
local Board = {}
Board.__index = Board

--- The files in a run's folder that are TensorBoard's.
---@return string[]  paths
function Board.files(folder)
  local list = {}
  for _, name in ipairs(files.list(folder)) do
    if name:find("events.out.tfevents.", 1, true) == 1 then list[#list + 1] = folder .. "/" .. name end
  end
  return list
end

--- A new file in a run's folder. The clock gives seconds since 1970.
---@param folder string
---@param clock fun(): number
---@return perigee.Board
function Board.open(folder, clock)
  local taken = #Board.files(folder)
  local path = ("%s/events.out.tfevents.%010d.perigee.%d"):format(folder, clock(), taken)
  local board = setmetatable({ folder = folder, path = path, clock = clock, step = 0, writer = files.append(path) },
    Board)
  board:write(0, text(3, "brain.Event:2"))
  return board
end

function Board:write(step, content)
  self.writer:write(record(real(1, self.clock()) .. whole(2, step) .. content))
end

--- Adds an event of the run's log.
---@param event table
function Board:take(event)
  local step = event.step or self.step
  self.step = step
  if event.event == "resume" then self:write(step, text(7, START)) end
  numbers.each(event, function(name, number)
    if number then self:write(step, scalar((name:gsub("%.", "/", 1)), number)) end
  end)
  local words = words_of(event)
  if words then self:write(step, sentence("events", words)) end
  if event.event == "sample" and event.file:match "%.png$" then
    local path = self.folder .. "/samples/" .. event.file
    if files.exists(path) then self:write(step, picture("samples", files.read(path))) end
  end
end

function Board:close() self.writer:suspend() end

--- What hears the events of a run that trains, for record/events.lua: a file of their own for each call that trains.
--- Training does not depend on it: where it can't be written, `tell` gets a sentence, once.
---@param folder string
---@param tell fun(message: string)
---@return fun(event: table)
function Board.listener(folder, tell)
  local board
  return function(event)
    if board == false then return end
    local fine, message = pcall(function()
      board = board or Board.open(folder, os.time)
      board:take(event)
    end)
    if fine then return end
    board = false
    tell(("%s; TensorBoard's file ends here: `perigee tensorboard %s` writes it again"):format(message, folder))
  end
end

return Board
