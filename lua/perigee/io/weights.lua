--- Weights under public names: what SiT, REPA, HASTE, timm and DINOv2 call the tensors of their checkpoints, to and
--- from the names that modules have here.
---
--- A model says its own as `public_names`: a table of names, or the key of one that is here.
---
--- A table of names is a list of { ours, theirs }: "#" is a position, counted from 1 here and from 0 there, and "*" the
--- last part of a name, the same on both sides.
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local safetensors = require "perigee.io.safetensors"
local tensor = require "perigee.core.tensor"
local weights_file = require "perigee.io.weights_file"

local M = {}

-- ---- the tables ----------------------------------------------------------------------------------------------

--- `ignored`: beginnings of names that a file may have and a model need not. `fixed`: tensors that may be there and
--- must then agree with a buffer of the model.
local tables = {
  -- SiT, REPA, HASTE. The position embedding is fixed here; the projectors belong to a loss, not to the student.
  sit = {
    { "patch_embedding.*", "x_embedder.proj.*" },
    { "time_embedding.hidden.*", "t_embedder.mlp.0.*" },
    { "time_embedding.output.*", "t_embedder.mlp.2.*" },
    { "label_embedding.table", "y_embedder.embedding_table.weight" },
    { "blocks.#.attention.qkv.*", "blocks.#.attn.qkv.*" },
    { "blocks.#.attention.projection.*", "blocks.#.attn.proj.*" },
    { "blocks.#.mlp.hidden.*", "blocks.#.mlp.fc1.*" },
    { "blocks.#.mlp.output.*", "blocks.#.mlp.fc2.*" },
    { "blocks.#.modulation.*", "blocks.#.adaLN_modulation.1.*" },
    { "final.projection.*", "final_layer.linear.*" },
    { "final.modulation.*", "final_layer.adaLN_modulation.1.*" },
    { "projectors.#.layers.1.*", "projectors.#.0.*" },
    { "projectors.#.layers.2.*", "projectors.#.2.*" },
    { "projectors.#.layers.3.*", "projectors.#.4.*" },
    ignored = { "projectors." },
    fixed = { pos_embed = "position" },
  },
  -- timm's vision transformers
  timm = {
    { "class_token", "cls_token" },
    { "register_tokens", "reg_token" },
    { "position", "pos_embed" },
    { "patch_embedding.*", "patch_embed.proj.*" },
    { "blocks.#.norm1.*", "blocks.#.norm1.*" },
    { "blocks.#.norm2.*", "blocks.#.norm2.*" },
    { "blocks.#.attention.qkv.*", "blocks.#.attn.qkv.*" },
    { "blocks.#.attention.projection.*", "blocks.#.attn.proj.*" },
    { "blocks.#.scale1.*", "blocks.#.ls1.*" },
    { "blocks.#.scale2.*", "blocks.#.ls2.*" },
    { "blocks.#.mlp.hidden.*", "blocks.#.mlp.fc1.*" },
    { "blocks.#.mlp.output.*", "blocks.#.mlp.fc2.*" },
    { "norm.*", "norm.*" },
    { "head.*", "head.*" },
    ignored = { "head.", "fc_norm.", "pre_logits." },
  },
}

--- DINOv2's own releases name register tokens differently, and the layers of SwiGLU w12 and w3.
local function dinov2_table(swiglu)
  local list = { ignored = { "mask_token", "head.", "linear_head." } }
  for k, pair in ipairs(tables.timm) do list[k] = { pair[1], pair[2] } end
  for _, pair in ipairs(list) do
    if pair[1] == "register_tokens" then pair[2] = "register_tokens" end
    if swiglu then pair[2] = pair[2]:gsub("mlp%.fc1", "mlp.w12"):gsub("mlp%.fc2", "mlp.w3") end
  end
  return list
end
tables.dinov2 = dinov2_table(false)
tables.dinov2_swiglu = dinov2_table(true)

-- ---- translation ---------------------------------------------------------------------------------------------

--- A function that turns a name of one form into the other form, or returns nil. `step` is added to each position.
local function translator(from, to, step)
  local pattern = "^" .. from:gsub("[%.%-]", "%%%0"):gsub("#", "(%%d+)"):gsub("%*", "([%%w_]+)") .. "$"
  return function(name)
    local captures = { name:match(pattern) }
    if not captures[1] then return nil end
    local k = 0
    return (to:gsub("[#%*]", function(mark)
      k = k + 1
      return mark == "#" and ("%d"):format(tonumber(captures[k]) + step) or captures[k]
    end))
  end
end

local function translate(names, name, outward)
  for _, pair in ipairs(names) do
    local from, to = outward and pair[1] or pair[2], outward and pair[2] or pair[1]
    local found = translator(from, to, outward and -1 or 1)(name)
    if found then return found end
  end
end

---@alias perigee.PublicNames "sit"|"timm"|"dinov2"|"dinov2_swiglu"|table

local function table_of(names)
  if type(names) == "table" then return names end
  if not tables[names] then core.fail("unknown names '%s'; expected sit, timm, dinov2 or dinov2_swiglu", names) end
  return tables[names]
end

--- A public name for one of ours ("blocks.1.attention.qkv.weight" -> "blocks.0.attn.qkv.weight"), or nil.
---@param names perigee.PublicNames
function M.public_name(names, ours) return translate(table_of(names), ours, true) end

--- The other way.
function M.own_name(names, theirs) return translate(table_of(names), theirs, false) end

--- The shape that public checkpoints give a parameter: a convolution's, where ours is a matrix.
local function public_shape(t) return rawget(t, "public_shape") or t.shape end

--- A model's parameters as public checkpoints have them: a list of { name, shape, parameter, own_name }. A parameter
--- that the table doesn't know is an error. `strip` is the beginning of our names that goes first, as "student.".
function M.public_parameters(model, names, strip)
  local list, known = {}, table_of(names)
  for k, entry in ipairs(model:named_parameters()) do
    local name = entry.name
    if strip and name:sub(1, #strip) == strip then name = name:sub(#strip + 1) end
    local public = translate(known, name, true)
    if not public then
      local whose = type(names) == "table" and "the model's public_names" or names
      core.fail("'%s' has no name among those of %s", entry.name, whose)
    end
    list[k] = { name = public, shape = public_shape(entry.tensor), parameter = entry.tensor, own_name = entry.name }
  end
  return list
end

-- ---- loading -------------------------------------------------------------------------------------------------

--- Opens a file of weights of any kind (io/weights_file.lua).
M.open = weights_file.open

--- The names that a file of a vision transformer uses.
local function guess(file, prefix)
  local has = function(name) return file.entries[prefix .. name] ~= nil end
  if has "blocks.0.mlp.w12.weight" then return "dinov2_swiglu" end
  if has "mask_token" or has "register_tokens" then return "dinov2" end
  return "timm"
end

local function is_ignored(name, lists)
  for _, list in ipairs(lists) do
    for _, beginning in ipairs(list) do
      if name:sub(1, #beginning) == beginning then return true end
    end
  end
  return false
end

--- The model whose names are meant: the group's member that `strip` begins with, or the model itself.
local function subject(model, strip) return strip and model[strip:match "^[%w_]+"] or model end

--- An error unless a tensor of the file equals a materialised buffer to 1e-4.
local function check_fixed(file, name, buffer)
  local found = file:info(name)
  if not layout.same_shape(found.shape, buffer.shape) then
    core.fail("%s: tensor '%s' is %s; the model's, which is fixed, is %s", file.path, name,
      core.shape_text(found.shape), core.shape_text(buffer.shape))
  end
  tensor.tidy(function()
    local theirs, count = tensor.to_host(file:read(name):to "float32")
    local ours = tensor.to_host(buffer:to "float32")
    local bound = buffer.dtype == "bfloat16" and 1e-2 or 1e-4
    for k = 0, count - 1 do
      local difference = math.abs(theirs[k] - ours[k])
      if difference > bound or difference ~= difference then
        core.fail("%s: tensor '%s' has %g at place %d, where the model has the fixed number %g", file.path, name,
          theirs[k], k + 1, ours[k])
      end
    end
  end)
end

--- Every tensor that is missing, has another shape, or belongs to nothing in the model.
local function check(file, wanted, prefix, expected, ignored)
  for _, entry in ipairs(wanted) do
    local name = prefix .. entry.name
    expected[name] = true
    local found = file.entries[name]
    if not found then
      core.fail("%s: tensor '%s' is missing; the model's %s needs it, %s", file.path, name, entry.own_name,
        core.shape_text(entry.shape))
    end
    if not layout.same_shape(found.shape, entry.shape) then
      core.fail("%s: tensor '%s' is %s; the model's %s needs %s", file.path, name, core.shape_text(found.shape),
        entry.own_name, core.shape_text(entry.shape))
    end
  end
  for _, name in ipairs(file.names) do
    local begins = name:sub(1, #prefix) == prefix
    if begins and not expected[name] and not is_ignored(name:sub(#prefix + 1), ignored) then
      core.fail("%s: tensor '%s' %s belongs to nothing in the model", file.path, name,
        core.shape_text(file.entries[name].shape))
    end
  end
end

---@class perigee.WeightsOptions
---@field names? "auto"|perigee.PublicNames  auto: the model's own, or found out from the file
---@field prefix? string     the beginning of every name in the file, as "ema."
---@field strip? string      the beginning of our names that the file's lack, as "student."
---@field ignore? string[]   beginnings of further names that may be in the file without use

--- Fills a materialised model from a file of public names. Missing, unexpected and wrong-shaped tensors are errors.
---@param file string|perigee.SafetensorsFile
---@param options? perigee.WeightsOptions
function M.load(file, model, options)
  options = options or {}
  if type(file) == "string" then file = M.open(file) end
  local prefix = options.prefix or ""
  local names = options.names or "auto"
  if names == "auto" then names = model.public_names or guess(file, prefix) end
  if names == "dinov2" and guess(file, prefix) == "dinov2_swiglu" then names = "dinov2_swiglu" end
  local wanted = M.public_parameters(model, names, options.strip)
  local known, expected = table_of(names), {}
  for name, field in pairs(known.fixed or {}) do
    local buffer = subject(model, options.strip)[field]
    if buffer and file.entries[prefix .. name] then
      expected[prefix .. name] = true
      check_fixed(file, prefix .. name, buffer)
    end
  end
  check(file, wanted, prefix, expected, { known.ignored, options.ignore or {} })
  for _, entry in ipairs(wanted) do
    tensor.tidy(function() entry.parameter:copy_(file:read(prefix .. entry.name):reshape(entry.parameter.shape)) end)
  end
  return model
end

-- ---- saving --------------------------------------------------------------------------------------------------

--- A model's parameters under public names and shapes, as views, and its fixed tensors that have such names.
---@param names perigee.PublicNames
---@return table<string, perigee.Tensor>
function M.export(model, names, strip)
  local tensors = {}
  for _, entry in ipairs(M.public_parameters(model, names, strip)) do
    tensors[entry.name] = entry.parameter:reshape(entry.shape)
  end
  for name, field in pairs(table_of(names).fixed or {}) do tensors[name] = subject(model, strip)[field] end
  return tensors
end

--- Saves a model under public names.
---@param options { names: perigee.PublicNames, strip?: string, metadata?: table<string, string> }
function M.save(path, model, options)
  safetensors.save(path, M.export(model, options.names, options.strip), options.metadata)
end

return M
