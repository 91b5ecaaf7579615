--- Programs as text: one line a call, values numbered in the order in which they appear, so that equal programs print
--- equally.
local core = require "perigee.core.ffi"

local M = {}

local short = { float32 = "f32", float64 = "f64", bfloat16 = "bf16", int32 = "i32", int64 = "i64", uint8 = "u8" }

-- what the types of a call's results say already, or its name
local told = { dtype = true, shape = true, device = true, operation = true }

--- A call's attributes, but for those that have their default.
local function attribute_text(node)
  local keys, parts, defaults = {}, {}, node.definition.defaults
  for key, value in pairs(node.attributes) do
    local default = defaults[key]
    if default == false then default = 0 elseif default == true then default = 1 end
    if not told[key] and value ~= default then keys[#keys + 1] = key end
  end
  table.sort(keys)
  for k, key in ipairs(keys) do
    local value = node.attributes[key]
    if type(value) == "table" then value = core.shape_text(value)
    elseif type(value) == "number" then value = (value % 1 == 0 and "%.0f" or "%.7g"):format(value) end
    parts[k] = ("%s=%s"):format(key, tostring(value))
  end
  return #parts > 0 and " {" .. table.concat(parts, ", ") .. "}" or ""
end

--- A plan as lines of text: inputs, captured tensors, calls, outputs, and what it costs (`cost = false`: without,
--- which depends on the number of threads). `names` maps captured tensors to names; `memory` says where values lie.
---@param options? { names?: table<perigee.Tensor, string>, memory?: boolean, cost?: boolean }
function M.plan(plan, options)
  options = options or {}
  local numbers, count, lines, calls = {}, 0, {}, {}
  for _, call in ipairs(plan.calls) do calls[call.node] = call end
  local function label(v)
    if not numbers[v] then
      count = count + 1
      numbers[v] = "%" .. count
    end
    return numbers[v]
  end
  local function typed(v) return ("%s %s%s"):format(label(v), short[v.dtype], core.shape_text(v.shape)) end
  local function add(...) lines[#lines + 1] = string.format(...) end

  add("program %s", plan.program.name)
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "input" then add("  input   %-28s %s", typed(slot.value), slot.name) end
  end
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "capture" then
      add("  tensor  %-28s %s", typed(slot.value), options.names and options.names[slot.value.tensor] or slot.name)
    end
  end
  for _, node in ipairs(plan.nodes) do
    local results, arguments = {}, {}
    for k, v in ipairs(node.outputs) do
      if not calls[node] or calls[node].values[k] then -- what nobody reads is not made
        local text = typed(v)
        if options.memory and not node.definition.view then
          local slot, offset = plan:address(v)
          text = text .. (slot < 0 and ("@%d"):format(offset) or ("@slot %d"):format(slot))
        end
        results[#results + 1] = text
      end
    end
    for k, v in ipairs(node.inputs) do arguments[k] = v and label(v) or "-" end
    add("  %s%s(%s)%s", #results > 0 and table.concat(results, ", ") .. " = " or "", node.definition.name,
      table.concat(arguments, ", "), attribute_text(node))
  end
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "output" then add("  output  %-28s %s", typed(slot.value), slot.name) end
  end
  if options.cost == false then return table.concat(lines, "\n") end
  local cost = plan:cost()
  add("  %d calls, %.3f GFLOP, %.1f MiB moved, arena %.1f MiB", cost.calls, cost.flops / 1e9, cost.bytes / 2 ^ 20,
    cost.arena_bytes / 2 ^ 20)
  return table.concat(lines, "\n")
end

return M
