--- Triangles against loops over numbers.
local cases = {}
for _, shape in ipairs { { 3, 3 }, { 2, 5 }, { 2, 4, 3 } } do
  for _, diagonal in ipairs { 0, 1, -2, 9 } do
    cases[#cases + 1] = {
      name = ("triangles of %s from diagonal %d"):format(table.concat(shape, "x"), diagonal), gradients = { 1 },
      inputs = { { shape = shape } }, tolerance = 0, gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
      run = function(_, x) return x:tril(diagonal), x:triu(diagonal) end,
      reference = function(_, x)
        local function cut(t, keep)
          if type(t[1][1]) == "table" then
            local list = {}
            for k, matrix in ipairs(t) do list[k] = cut(matrix, keep) end
            return list
          end
          local rows = {}
          for i, row in ipairs(t) do
            rows[i] = {}
            for j, v in ipairs(row) do rows[i][j] = keep(j - i) and v or 0 end
          end
          return rows
        end
        return cut(x:totable(), function(d) return d <= diagonal end),
          cut(x:totable(), function(d) return d >= diagonal end)
      end,
    }
  end
end
cases[#cases + 1] = { name = "triangle of a vector", run = function(_, x) return x:tril() end,
  inputs = { { shape = { 3 } } }, error = "tril: x is [3]; it needs two dimensions or more" }
return cases
