--- Help from the annotations: the `---` comments above the library's functions.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local nearest = require "perigee.base.nearest"
local tables = require "perigee.base.tables"

local M = {}

local index -- last part of a name -> { { module, name, signature, comments, place }, ... }

local function add(name, entry)
  index[name] = index[name] or {}
  table.insert(index[name], entry)
end

--- The name and signature that a line of code defines.
local function defined(line)
  local name, arguments = line:match "^%s*function%s+([%w_%.:]+)%s*(%b())"
  if name then return name, arguments end
  return line:match "^%s*([%w_]+)%s*=%s*function%s*(%b())"
end

--- The same of a file's last value, which has the file's name: perigee.stops.at_step -> stops.at_step.
local function returned(line, module)
  local arguments = line:match "^return function%s*(%b())"
  return arguments and module:match "[%w_]+%.[%w_]+$", arguments
end

local function scan(path, module)
  local comments, header, number = {}, nil, 0
  local function entry(name, arguments, said, line)
    add(name:match "[%w_]+$", { module = module, name = name, arguments = arguments, comments = said,
      place = path:sub(#core.home + 2) .. (line and ":" .. line or "") })
  end
  for line in io.lines(path) do
    number = number + 1
    local comment = line:match "^%s*%-%-%-%s?(.*)$"
    if comment then
      comments[#comments + 1] = comment
    else
      local name, arguments = defined(line)
      local own, given = returned(line, module)
      if own then -- the comment at the file's head is about it
        local said = header or {}
        for _, text in ipairs(comments) do said[#said + 1] = text end
        entry(own, given, said, number)
        header = nil
      elseif name and #comments > 0 then
        entry(name, arguments or "", comments, number)
      elseif number <= #comments + 1 and #comments > 0 then
        header = comments
      end
      comments = {}
    end
  end
  if header then entry(module, "", header) end
end

local function walk(folder, prefix)
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    if name:match "%.lua$" then
      local module = name == "init.lua" and prefix or prefix .. "." .. name:sub(1, -5)
      scan(path, module)
    elseif name:sub(1, 1) ~= "." and files.kind(path) == "directory" then
      walk(path, prefix .. "." .. name)
    end
  end
end

local function build()
  index = {}
  walk(core.home .. "/lua/perigee", "perigee")
end

--- "stop.any" fits perigee.stops's M.any: the part before the last dot is the beginning of a word of the module's name.
local function fits(entry, qualifier)
  if not qualifier then return true end
  for word in (entry.module .. "." .. entry.name):gmatch "[%w_]+" do
    if word:lower():sub(1, #qualifier) == qualifier:lower() then return true end
  end
  return false
end

--- The library's documentation of a name: "gradient_angle", "stop.gradient_angle", "run:loss".
function M.text(name)
  if not index then build() end
  local parts = {}
  for part in name:gmatch "[%w_]+" do parts[#parts + 1] = part end
  local last, qualifier = parts[#parts], parts[#parts - 1]
  local found = last and index[last] or {}
  local texts = {}
  for _, entry in ipairs(found) do
    if fits(entry, qualifier) and #texts < 6 then
      local lines = { ("%s%s    (%s)"):format(entry.name:gsub("^M%.", entry.module:match "[%w_]+$" .. "."),
        entry.arguments, entry.place) }
      for _, comment in ipairs(entry.comments) do lines[#lines + 1] = "  " .. comment end
      texts[#texts + 1] = table.concat(lines, "\n")
    end
  end
  if #texts > 0 then return table.concat(texts, "\n\n") end
  return ("nothing is said about '%s'%s"):format(name, nearest.hint(last or name, tables.sorted_keys(index)))
end

return M
