--- perigee import: public weights as a model here has them.
local M = {
  summary = "convert public weights for a model",
  usage = "FILE OUT.safetensors --as MODEL [options]",
  description = "Reads weights that PyTorch, timm or Hugging Face saved, recognises their names, fills a model with\n"
    .. "them and writes that model's own file. Missing, left over and wrong-shaped tensors are errors. A recipe can\n"
    .. "also take the file as it is: MODEL { weights = FILE }.",
  options = {
    { name = "as", type = "string", help = "the model: sit_xl_2, dinov2_vit_b_14, vit_base_patch16_224, ..." },
    { name = "names", type = "string", default = "auto", help = "the table of names of FILE (default: recognised)" },
    { name = "take", type = "string", help = "the part of FILE: ema, model, teacher (default: the first it has)" },
    { name = "set", type = "pairs", help = "set an option of the model (classes=10); may be repeated" },
  },
}

--- Numbers, sizes ("4x6") and switches among texts.
local function value_of(text)
  local height, width = text:match "^(%d+)x(%d+)$"
  if height then return { tonumber(height), tonumber(width) } end
  if text == "true" or text == "false" then return text == "true" end
  return tonumber(text) or text
end

--- The model's settings that the shapes of a SiT's file give.
local function sit_options(file, kind)
  local function shape(name) return file:info(kind.prefix .. name).shape end
  local patches, rows = shape "x_embedder.proj.weight", shape("y_embedder.embedding_table.weight")[1]
  local place = file.entries[kind.prefix .. "pos_embed"]
  local side = place and math.sqrt(place.shape[2])
  return { channels = patches[2], classes = rows - 1,
    size = side and side % 1 == 0 and side * patches[3] or nil }
end

--- The model's settings that the file's shapes give.
local function options_of(file, kind)
  local family = kind.table.family
  if family == "sit" then return sit_options(file, kind) end
  return family:match "^autoencoder_" and require("perigee.models")[family].options_of(file, kind) or {}
end

--- The table of names under which a model is written.
local function own_names(model, kind)
  if model.public_names then return model.public_names end
  local own = { dinov2_hf = "dinov2", dinov2_swiglu_hf = "dinov2_swiglu", mae = "timm" }
  return own[kind.names] or kind.names
end

local function is_bfloat16(file)
  for _, name in ipairs(file.names) do
    if file.entries[name].stored ~= "BF16" then return false end
  end
  return true
end

function M.run(options)
  local path, out = options[1], options[2]
  if not path or not out then error("perigee import needs a file and where to write: perigee import " .. M.usage, 0) end
  if not options.as then error("perigee import needs --as MODEL, the model to fill", 0) end
  if not out:match "%.safetensors$" then error(out .. ": weights are written as .safetensors", 0) end
  local kinds, weights = require "perigee.io.weights_kind", require "perigee.io.weights"
  local make = require("perigee.models")[options.as]
  local file = weights.open(path)
  local kind = kinds.expect(file, nil, { names = options.names, take = options.take })
  print(("%s: %s (names %s)"):format(path, kind.table.what, kind.names))
  if kind.prefixes[2] then
    print(("it has weights under %s; '%s' is taken"):format(kinds.prefixes_text(kind.prefixes), kind.prefix:sub(1, -2)))
  end
  local given = options_of(file, kind)
  given.weights, given.names, given.take = path, kind.names, options.take
  for key, value in pairs(options.set or {}) do given[key] = value_of(value) end
  local model = make(given)
  if kind.table.note and model.public_names ~= kind.names then print(kind.table.note) end
  model:materialise { dtype = is_bfloat16(file) and "bfloat16" or "float32" }
  local names = own_names(model, kind)
  weights.save(out, model, { names = names, metadata = { names = names, model = options.as } })
  print(("%s: %s, %.2f M parameters (names %s)"):format(out, options.as, model:parameter_count() / 1e6, names))
  return 0
end

return M
