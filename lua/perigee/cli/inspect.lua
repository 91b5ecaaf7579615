--- perigee inspect: what a file of tensors holds.
local M = {
  summary = "list what a file of weights or arrays holds",
  usage = "FILE [options]",
  description = "Prints a file's kind, what its weights seem to be, and the names, dtypes and shapes of its tensors:\n"
    .. "PyTorch's .pt and .pth, safetensors and their index, checkpoints, .npy, .npz. No tensor is read, and\n"
    .. "nothing in the file is run.",
  options = {
    { name = "tensors", type = "boolean", default = true, help = "list the tensors" },
  },
}

local printable = require "perigee.base.printable"

local MOST_VALUES, MOST_TEXT = 60, 60

--- A name or text of a file, on one line.
local function clean(text, most)
  text = tostring(text):gsub("[\n\t]", "?")
  return most and #text > most and text:sub(1, most) .. "..." or text
end

local function shape_text(shape) return require("perigee.core.ffi").shape_text(shape) end

--- Lines about the numbers and texts next to the tensors of a PyTorch file.
local function value_lines(value)
  local pickle = require "perigee.io.pickle"
  local lines = {}
  local function walk(x, name, depth)
    if x == nil or #lines > MOST_VALUES or depth > 3 then return end
    local head = name == "" and "" or name .. "."
    if pickle.is_dict(x) then
      for _, key in ipairs(x.keys) do walk(x.values[key], head .. tostring(key), depth + 1) end
    elseif type(x) ~= "table" or x == pickle.none or getmetatable(x) and getmetatable(x).__tostring then
      lines[#lines + 1] = ("  %s = %s"):format(clean(name), clean(x, MOST_TEXT))
    end
  end
  walk(value, "", 0)
  if #lines > MOST_VALUES then lines[#lines] = "  ..." end
  return lines
end

local KINDS = {
  zip = "a PyTorch file", legacy = "a PyTorch file of the older form", torchscript = "a TorchScript archive",
  tensorflow = "a frozen graph of TensorFlow",
}

--- A checkpoint of Perigee in words, or nil.
local function checkpoint_text(file)
  local fine, state = pcall(require("perigee.io.json").decode, file.metadata.perigee or "")
  if not fine or type(state) ~= "table" or state.format ~= "perigee-checkpoint" then return nil end
  return ("a checkpoint of %s at step %s, in stage %s"):format(clean(state.recipe), clean(state.step),
    clean(state.stage_name))
end

--- The kind of weights, as lines.
local function seems(file)
  local kinds = require "perigee.io.weights_kind"
  local kind, why = kinds.recognise(file)
  if not kind then return { kinds.sentence(why) } end
  local lines = { ("it is %s (names %s)"):format(kind.table.what, kind.names) }
  if kind.prefixes[2] then
    lines[2] = ("it has weights under %s; '%s' is taken unless another is chosen"):format(
      clean(kinds.prefixes_text(kind.prefixes)), clean(kind.prefixes[1]:sub(1, -2)))
  elseif kind.prefixes[1] ~= "" then
    lines[2] = ("its weights are under '%s'"):format(clean(kind.prefixes[1]:sub(1, -2)))
  end
  if kind.table.note then lines[#lines + 1] = kind.table.note end
  return lines
end

local function print_tensors(file)
  local widest = 0
  for _, name in ipairs(file.names) do widest = math.max(widest, #name) end
  widest = math.min(widest, 60)
  for _, name in ipairs(file.names) do
    local entry = file.entries[name]
    printable.print(("  %-" .. widest .. "s  %-8s %s"):format(clean(name), entry.stored, shape_text(entry.shape)))
  end
end

local function inspect_weights(path, options)
  local file = require("perigee.io.weights_file").open(path)
  local numbers, layout = 0, require "perigee.core.layout"
  for _, name in ipairs(file.names) do numbers = numbers + layout.numel(file.entries[name].shape) end
  local kind = file.kind and KINDS[file.kind] or file.shards and "an index of safetensors files" or "a safetensors file"
  printable.print(("%s: %s, %d tensors of %.0f numbers"):format(path, kind, #file.names, numbers))
  local checkpoint = checkpoint_text(file)
  if checkpoint then printable.print(checkpoint)
  elseif #file.names > 0 then
    for _, line in ipairs(seems(file)) do printable.print(line) end
  end
  for _, line in ipairs(value_lines(file.value)) do printable.print(line) end
  for _, key in ipairs(checkpoint and {} or require("perigee.base.tables").sorted_keys(file.metadata)) do
    printable.print(("  %s = %s"):format(clean(key), clean(file.metadata[key], MOST_TEXT)))
  end
  if options.tensors then print_tensors(file) end
end

local function inspect_npz(path, options)
  local archive = require("perigee.io.zip").open(path)
  printable.print(("%s: an .npz archive of %d arrays"):format(path, #archive.names))
  for _, name in ipairs(options.tensors and archive.names or {}) do
    local what
    if not archive.entries[name].stored then what = "compressed"
    else
      local fine, header = pcall(function() return require("perigee.io.npy").header(path, archive:place(name)) end)
      what = fine and ("%-8s %s"):format(header.dtype, shape_text(header.shape)) or clean(header, 200)
    end
    printable.print(("  %s  %s"):format(clean(name:gsub("%.npy$", "")), what))
  end
end

--- Is a file an .npz archive: a zip whose entries are all .npy?
local function is_npz(path)
  local files = require "perigee.io.files"
  if files.read(path, 0, math.min(4, files.size(path))) ~= "PK\3\4" then return false end
  local names = require("perigee.io.zip").open(path).names
  for _, name in ipairs(names) do
    if not name:match "%.npy$" then return false end
  end
  return #names > 0
end

function M.run(options)
  local files = require "perigee.io.files"
  local path = options[1] or error("perigee inspect needs a file", 0)
  if files.kind(path) == "directory" then
    local index = path .. "/model.safetensors.index.json"
    if not files.exists(index) then error(path .. " is a folder; name the file in it", 0) end
    path = index
  end
  if files.read(path, 0, math.min(6, files.size(path))) == "\147NUMPY" then
    local header = require("perigee.io.npy").header(path)
    printable.print(("%s: a .npy array, %s %s"):format(path, header.dtype, shape_text(header.shape)))
  elseif is_npz(path) then inspect_npz(path, options)
  else inspect_weights(path, options) end
  return 0
end

return M
