--- Distinct elements against a table of them.
local cases = {}

for _, dtype in ipairs { "int32", "int64", "uint8", "float32" } do
  for _, shape in ipairs { { 1 }, { 7, 9 }, { 300 } } do
    cases[#cases + 1] = {
      name = ("unique of %s %s"):format(dtype, table.concat(shape, "x")), dtypes = { "float32" }, compiled = false,
      inputs = { { shape = shape, int = { dtype == "uint8" and 0 or -20, 20 }, dtype = dtype } },
      run = function(ops, x) return ops.unique(x, { inverse = true, counts = true }) end,
      reference = function(ops, x)
        local count, distinct, place, inverse, counts = {}, {}, {}, {}, {}
        local flat = ops.reshape(x, { -1 }):totable()
        for _, v in ipairs(flat) do
          if not count[v] then distinct[#distinct + 1] = v end
          count[v] = (count[v] or 0) + 1
        end
        table.sort(distinct)
        for k, v in ipairs(distinct) do place[v], counts[k] = k - 1, count[v] end
        for k, v in ipairs(flat) do inverse[k] = place[v] end
        return distinct, inverse, counts
      end,
    }
  end
end
cases[#cases + 1] = {
  name = "unique of NaN, infinities, zeros; only counts; of nothing", compiled = false, strided = false, tolerance = 0,
  inputs = { { values = { 0 / 0, 1, math.huge, 0 / 0, -0.0, 0, -math.huge, 1 } }, { shape = { 0 } } },
  run = function(ops, x, empty)
    local values, counts = ops.unique(x, { counts = true })
    return values, counts, x:unique(), (empty:unique { counts = true })
  end,
  reference = function()
    local values = { -math.huge, 0, 1, math.huge, 0 / 0, 0 / 0 }
    return values, { 1, 2, 2, 1, 1, 1 }, values, {}
  end,
}
return cases
