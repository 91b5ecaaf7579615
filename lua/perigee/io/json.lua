--- JSON, strict in what it reads and stable in what it writes: object keys are sorted, numbers keep every bit, so
--- equal values make equal files. A decoded array knows that it is one, an empty one too. A name that an object has
--- twice is an error. `null` is json.null.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local recognise = require "perigee.io.recognise"

local M = {}

M.null = setmetatable({}, { __tostring = function() return "null" end })

local Array = {}
local MAX_DEPTH = 64

--- Marks a list as an array, which matters where it is empty.
---@generic T
---@param list T
---@return T
function M.array(list) return setmetatable(list or {}, Array) end

--- Whether a table is written as an array.
---@param t table
---@return boolean
function M.is_array(t) return getmetatable(t) == Array or (#t > 0 and getmetatable(t) == nil) end

-- ---- decoding ---------------------------------------------------------------------------------------------------

local find, match, sub, byte = string.find, string.match, string.sub, string.byte

local function line_of(text, position)
  local line = 1
  for _ in text:sub(1, position - 1):gmatch "\n" do line = line + 1 end
  return line
end

local function refuse(reader, position, format, ...)
  core.fail("%s: line %d: %s", reader.name, line_of(reader.text, position), format:format(...))
end

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xc0 + math.floor(code / 64), 0x80 + code % 64) end
  local low, middle = 0x80 + code % 64, 0x80 + math.floor(code / 64) % 64
  if code < 0x10000 then return string.char(0xe0 + math.floor(code / 4096), middle, low) end
  return string.char(0xf0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64, middle, low)
end

local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

--- The text of one escape whose backslash is at `position`, and where it ends.
local function unescape(reader, position)
  local text = reader.text
  local letter = sub(text, position + 1, position + 1)
  if escapes[letter] then return escapes[letter], position + 1 end
  local high = text:match("^u(%x%x%x%x)", position + 1)
  if not high then refuse(reader, position, "'\\%s' is not an escape", letter) end
  local code = tonumber(high, 16)
  if code < 0xd800 or code > 0xdfff then return utf8(code), position + 5 end
  local low = tonumber(text:match("^\\u(%x%x%x%x)", position + 6) or "0", 16)
  if code > 0xdbff or low < 0xdc00 or low > 0xdfff then refuse(reader, position, "half of a surrogate pair") end
  return utf8(0x10000 + (code - 0xd800) * 1024 + low - 0xdc00), position + 11
end

--- A string whose opening quote is at `position`, and the position after its closing one.
local function read_string(reader, position)
  local text = reader.text
  local stop = find(text, '["\\%c]', position + 1)
  if stop and byte(text, stop) == 34 then return sub(text, position + 1, stop - 1), stop + 1 end
  local parts, from = {}, position + 1
  while true do
    if not stop then refuse(reader, position, "a string that does not end") end
    local character = byte(text, stop)
    parts[#parts + 1] = sub(text, from, stop - 1)
    if character == 34 then return table.concat(parts), stop + 1 end
    if character ~= 92 then refuse(reader, stop, "a control character in a string") end
    parts[#parts + 1], from = unescape(reader, stop)
    from = from + 1
    stop = find(text, '["\\%c]', from)
  end
end

--- The position of the next character that is no white space.
local function skip(reader, position)
  local character = byte(reader.text, position)
  if character and character > 32 then return position end
  return find(reader.text, "[^ \t\r\n]", position) or #reader.text + 1
end

local read_value

local function read_object(reader, position, depth)
  local object, text = {}, reader.text
  position = skip(reader, position + 1)
  if byte(text, position) == 125 then return object, position + 1 end
  while true do
    if byte(text, position) ~= 34 then refuse(reader, position, "expected a name in quotes") end
    local name, after = read_string(reader, position)
    if object[name] ~= nil then refuse(reader, position, "the name '%s' comes twice", name) end
    after = skip(reader, after)
    if byte(text, after) ~= 58 then refuse(reader, after, "expected ':' after the name '%s'", name) end
    object[name], position = read_value(reader, skip(reader, after + 1), depth)
    position = skip(reader, position)
    local mark = byte(text, position)
    if mark == 125 then return object, position + 1 end
    if mark ~= 44 then refuse(reader, position, "expected ',' or '}' after '%s'", name) end
    position = skip(reader, position + 1)
  end
end

local function read_array(reader, position, depth)
  local array, text, count = setmetatable({}, Array), reader.text, 0
  position = skip(reader, position + 1)
  if byte(text, position) == 93 then return array, position + 1 end
  while true do
    count = count + 1
    array[count], position = read_value(reader, position, depth)
    position = skip(reader, position)
    local mark = byte(text, position)
    if mark == 93 then return array, position + 1 end
    if mark ~= 44 then refuse(reader, position, "expected ',' or ']'") end
    position = skip(reader, position + 1)
  end
end

local function read_number(reader, position)
  local digits, after = match(reader.text, "^([1-9]%d*)()[],}%s]", position) -- most are whole
  if digits then return tonumber(digits), after end
  local _, stop = find(reader.text, "^-?%d+%.?%d*[eE]?[+-]?%d*", position)
  local text = stop and sub(reader.text, position, stop)
  local malformed = not text or find(text, "^-?0%d") or find(text, "%.$") or find(text, "%.[eE]")
  local value = not malformed and tonumber(text)
  if not value then refuse(reader, position, "expected a value") end
  return value, stop + 1
end

local words = { t = { "true", true }, f = { "false", false }, n = { "null", M.null } }

function read_value(reader, position, depth)
  if depth > MAX_DEPTH then refuse(reader, position, "more than %d levels of nesting", MAX_DEPTH) end
  local first = sub(reader.text, position, position)
  if first == '"' then return read_string(reader, position) end
  if first == "{" then return read_object(reader, position, depth + 1) end
  if first == "[" then return read_array(reader, position, depth + 1) end
  local word = words[first]
  if not word then return read_number(reader, position) end
  local after = position + #word[1]
  if sub(reader.text, position, after - 1) ~= word[1] then refuse(reader, position, "expected a value") end
  return word[2], after
end

--- The value that a text stands for. `name` (a path, say) begins the message of an error.
---@param text string
---@param name? string
function M.decode(text, name)
  local reader = { text = text, name = name or "JSON" }
  local value, position = read_value(reader, skip(reader, 1), 1)
  position = skip(reader, position)
  if position <= #text then refuse(reader, position, "something follows the value") end
  return value
end

-- ---- encoding ---------------------------------------------------------------------------------------------------

local short = {}
for letter, character in pairs(escapes) do short[character] = "\\" .. letter end

local function quoted(text)
  return '"' .. text:gsub('[%c"\\\127]', function(c) return short[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

--- The shortest text that reads back as the same number.
local function number_text(x, path)
  if x ~= x or x == math.huge or x == -math.huge then
    core.fail("JSON has no way to write %s, the value of '%s'", tostring(x), path)
  end
  if x % 1 == 0 and math.abs(x) < 2 ^ 53 then return (x == 0 and 1 / x < 0) and "-0.0" or ("%.0f"):format(x) end
  for digits = 15, 17 do
    local text = ("%%.%dg"):format(digits):format(x)
    if tonumber(text) == x then return text end
  end
end

local write_value

local function write_array(array, out, path, indent)
  out[#out + 1] = "["
  for k = 1, #array do
    if k > 1 then out[#out + 1] = indent and ", " or "," end
    write_value(array[k], out, path .. "[" .. k .. "]", indent)
  end
  out[#out + 1] = "]"
end

local function sorted_names(object, path)
  local names = {}
  for name in pairs(object) do
    if type(name) ~= "string" then
      core.fail("JSON: '%s' is neither a list nor a table with names: it has the key %s", path, tostring(name))
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function write_object(object, out, path, indent)
  local names, inner = sorted_names(object, path), indent and indent .. "  "
  out[#out + 1] = "{"
  for k, name in ipairs(names) do
    if k > 1 then out[#out + 1] = "," end
    if indent then out[#out + 1] = "\n" .. inner end
    out[#out + 1] = quoted(name) .. (indent and ": " or ":")
    write_value(object[name], out, path .. "." .. name, inner)
  end
  if indent and #names > 0 then out[#out + 1] = "\n" .. indent end
  out[#out + 1] = "}"
end

local writers = {
  string = function(x, out) out[#out + 1] = quoted(x) end,
  number = function(x, out, path) out[#out + 1] = number_text(x, path) end,
  boolean = function(x, out) out[#out + 1] = tostring(x) end,
  table = function(x, out, path, indent)
    if #path > 4096 then core.fail("JSON: '%s...' is nested too deeply", path:sub(1, 80)) end
    if x == M.null then out[#out + 1] = "null"
    elseif M.is_array(x) then write_array(x, out, path, indent)
    else write_object(x, out, path, indent) end
  end,
}

function write_value(x, out, path, indent)
  local writer = writers[type(x)]
  if not writer then core.fail("JSON has no way to write a %s, the value of '%s'", type(x), path) end
  writer(x, out, path, indent)
end

--- A value as text. `pretty`: objects get a line a name.
---@param value any
---@param pretty? boolean
---@return string
function M.encode(value, pretty)
  local out = {}
  write_value(value, out, "value", pretty and "" or nil)
  return table.concat(out)
end

-- ---- files ------------------------------------------------------------------------------------------------------

--- The value in a file.
function M.read(path)
  local fine, value = pcall(M.decode, files.read(path), path)
  if fine then return value end
  local known = recognise.sentence(path)
  if known and known ~= "it is a JSON text" then core.fail("%s: not a JSON file: %s", path, known) end
  error(value, 0)
end

--- Writes a value to a file, which appears whole or not at all.
function M.write(path, value) files.write(path, M.encode(value, true) .. "\n") end

return M
