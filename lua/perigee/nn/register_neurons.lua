--- Registers without training (Jiang et al. 2025, arXiv 2506.08010). In vision transformers a few neurons of the MLPs
--- give some patches outlying norms. Tokens that are added at test time take these neurons' values instead: each gets
--- the neuron's largest value over all tokens, and the patches get 0; the class token keeps its own.
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

--- The neurons by block: { [block] = { neuron, ... } }, checked against a model's depth and hidden width.
---@param what string        what the list is called in messages
---@param neurons integer[][]  pairs { block, neuron }, both from 1
---@return table<integer, integer[]>
function M.by_block(what, neurons, depth, hidden)
  local found = {}
  for k, pair in ipairs(neurons) do
    local block, neuron = unpack(type(pair) == "table" and pair or {})
    if type(block) ~= "number" or type(neuron) ~= "number" then
      core.fail("%s[%d] is not a pair { block, neuron }", what, k)
    end
    if block < 1 or block > depth or block % 1 ~= 0 or neuron < 1 or neuron > hidden or neuron % 1 ~= 0 then
      core.fail("%s[%d] is { %g, %g }; the model has %d blocks with %d neurons each", what, k, block, neuron, depth,
        hidden)
    end
    found[block] = found[block] or {}
    table.insert(found[block], neuron)
  end
  return found
end

--- A constant of ones at the given places and zeros elsewhere, for ops with `like`.
local function ones_at(places, shape, like)
  local values = {}
  for k = 1, shape[1] * shape[2] * shape[3] do values[k] = 0 end
  for _, place in ipairs(places) do values[place] = 1 end
  local t = tensor.tensor(values, shape, "float32"):to(like.dtype)
  return tensor.is_tensor(like) and t:to(like.device) or t
end

local function range(first, last)
  local list = {}
  for k = first, last do list[#list + 1] = k end
  return list
end

--- The hidden layer [B,N,F] with the values of some neurons moved to the tokens `first` to `first + count − 1`; tokens
--- before `kept + 1` keep theirs.
---@param neurons integer[]  from 1
---@param kept integer       0 or 1: the class token
function M.move(hidden, neurons, first, count, kept)
  local tokens, width = hidden.shape[2], hidden.shape[3]
  local chosen = ones_at(neurons, { 1, 1, width }, hidden)
  local cleared = ones_at(range(kept + 1, tokens), { 1, tokens, 1 }, hidden)
  local registers = ones_at(range(first, first + count - 1), { 1, tokens, 1 }, hidden)
  local largest = ops.max(hidden, 2, { keep = true })
  return hidden * (1 - chosen * cleared) + largest * (chosen * registers)
end

--- Scores of neurons by their mean absolute value at outlying patches, averaged over the images that have such.
---@param hiddens (perigee.Tensor)[]  [B,N,F] by block
---@param tokens perigee.Tensor       [B,N,D], the block's output where norms are looked at
---@param threshold number            a patch is outlying from this norm
---@param skip integer                tokens in front that are no patches
---@param count integer               so many pairs are returned, the highest first
---@return { [1]: integer, [2]: integer, score: number }[]  pairs { block, neuron }
function M.find(hiddens, tokens, threshold, skip, count)
  local patches = tokens.shape[2] - skip
  local norms = ops.sqrt(ops.sum(tokens * tokens, -1)):narrow(2, skip + 1, patches)
  local outlying = ops.cast(ops.greater(norms, threshold), tokens.dtype)
  local each = ops.sum(outlying, 2, { keep = true })
  local images = ops.sum(ops.cast(ops.greater(each, 0), "float64")):item()
  if images == 0 then
    core.fail("no patch has a norm above %g; the largest is %g", threshold, ops.max(norms):item())
  end
  local weights = (outlying / ops.maximum(each, 1)):reshape { tokens.shape[1], 1, patches }
  local list = {}
  for block = 1, table.maxn(hiddens) do
    local values = ops.abs(hiddens[block]:narrow(2, skip + 1, patches):contiguous())
    for neuron, score in ipairs(ops.sum(ops.matmul(weights, values), { 1, 2 }):totable()) do
      list[#list + 1] = { block, neuron, score = score / images }
    end
  end
  table.sort(list, function(a, b)
    if a.score ~= b.score then return a.score > b.score end
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  return tables.copy { unpack(list, 1, math.min(count, #list)) }
end

return M
