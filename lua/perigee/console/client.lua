--- The other end of a running trainer's console.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local server = require "perigee.console.server"

local C, check = core.C, core.check

---@class perigee.ConsoleClient
---@field hello table  what the run said of itself
local Client = {}
Client.__index = Client

local M = {}

local frame, bytes = ffi.new "const char *[1]", ffi.new "int64_t[1]"

--- Waits for the message that `wanted` takes; `give_up()` is asked every tenth of a second.
function Client:receive(wanted, give_up)
  while true do
    check(C.pg_console_read(self.handle, 100, frame, bytes))
    if bytes[0] >= 0 then
      local message = json.decode(ffi.string(frame[0], bytes[0]))
      if wanted(message) then return message end
    elseif give_up and give_up() then
      return nil
    end
  end
end

--- Connects to the run in a folder.
---@return perigee.ConsoleClient
function M.connect(folder)
  local pointer = ffi.new "pg_console_link *[1]"
  check(C.pg_console_connect(pointer, folder:gsub("/+$", "") .. "/" .. server.SOCKET))
  local self = setmetatable({ handle = ffi.gc(pointer[0], C.pg_console_disconnect), id = 0 }, Client)
  self.hello = self:receive(function(message) return message.hello end).hello
  return self
end

--- Sends a request and waits for its answer; nil where `give_up` said so.
function Client:ask(request, give_up)
  self.id = self.id + 1
  request.id = self.id
  local text = json.encode(request)
  check(C.pg_console_write(self.handle, text, #text))
  return self:receive(function(message) return message.id == request.id end, give_up)
end

function Client:close()
  C.pg_console_disconnect(ffi.gc(self.handle, nil))
end

return M
