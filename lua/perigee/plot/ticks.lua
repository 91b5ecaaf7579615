--- Where an axis has its ticks, and their labels.
local M = {}

local MINUS = "\226\136\146" -- U+2212
local SUPERSCRIPTS = { [0] = "⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹" }

local function signed(text) return (text:gsub("^%-", MINUS):gsub("e%-", "e" .. MINUS)) end

--- The least of 1, 2, 2.5, 5, 10 times a power of ten that cuts low to high into at most `most` parts.
local function interval(low, high, most)
  local rough = (high - low) / most
  local power = 10 ^ math.floor(math.log10(rough))
  for _, factor in ipairs { 1, 2, 2.5, 5 } do
    if factor * power >= rough * (1 - 1e-9) then return factor * power end
  end
  return 10 * power
end

--- Decimals that tell apart the multiples of a number.
local function decimals(step)
  for count = 0, 15 do
    local scaled = step * 10 ^ count
    if math.abs(scaled - math.floor(scaled + 0.5)) < 1e-6 * scaled then return count end
  end
  return 15
end

--- Texts for values that are `step` apart: 250, 0.05, 40k, 1.5M, 2e−6.
local function format(values, step)
  local greatest = 0
  for _, value in ipairs(values) do greatest = math.max(greatest, math.abs(value)) end
  local divisor, suffix = 1, ""
  if greatest >= 1e6 then divisor, suffix = 1e6, "M"
  elseif greatest >= 1e4 then divisor, suffix = 1e3, "k" end
  local texts = {}
  for k, value in ipairs(values) do
    if value == 0 then texts[k] = "0"
    elseif greatest >= 1e10 or greatest < 1e-3 then
      texts[k] = signed((("%.3e"):format(value):gsub("%.?0*e", "e"):gsub("e([+-])0*(%d)", "e%1%2"):gsub("e%+", "e")))
    else texts[k] = signed(("%." .. decimals(step / divisor) .. "f"):format(value / divisor)) .. suffix end
  end
  return texts
end

---@class perigee.Ticks
---@field values number[]
---@field texts string[]

--- At most about `most` ticks at round numbers between low and high.
---@return perigee.Ticks
function M.linear(low, high, most)
  local step, values = interval(low, high, most), {}
  for k = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do values[#values + 1] = k * step end
  return { values = values, texts = format(values, step) }
end

local function power_text(exponent)
  if exponent >= -2 and exponent <= 3 then return ("%g"):format(10 ^ exponent) end
  local digits = tostring(math.abs(exponent)):gsub("%d", function(digit) return SUPERSCRIPTS[tonumber(digit)] end)
  return "10" .. (exponent < 0 and "⁻" or "") .. digits
end

--- Ticks of a logarithmic axis (0 < low < high): powers of ten; 1, 2 and 5 times them where there are few; round
--- numbers within a decade.
---@return perigee.Ticks
function M.logarithmic(low, high, most)
  local first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
  local values, texts = {}, {}
  if last - first >= 2 then
    local stride = math.ceil((last - first + 1) / most)
    for exponent = first, last, stride do
      values[#values + 1], texts[#texts + 1] = 10 ^ exponent, power_text(exponent)
    end
    return { values = values, texts = texts }
  end
  for exponent = first - 1, last do
    for _, factor in ipairs { 1, 2, 5 } do
      local value = factor * 10 ^ exponent
      if value >= low and value <= high then values[#values + 1], texts[#texts + 1] = value, ("%g"):format(value) end
    end
  end
  if #values >= 3 then return { values = values, texts = texts } end
  return M.linear(low, high, most)
end

return M
