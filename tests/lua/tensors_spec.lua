-- Tensors as somebody from PyTorch uses them: indexing, writing, printing, and messages that say what to write.
local door = require "perigee.core.ffi"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"

local ops = pg.ops
local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function counted(...) return pg.arange(pg.zeros(...):numel()):reshape(...) end

describe("x[key] reads", function()
  local x = counted(3, 4, 5)
  local t = x:totable()

  it("entries, from 1 and from the end", function()
    assert.same(t[1], x[1]:totable())
    assert.same(t[3], x[-1]:totable())
    assert.equal(t[2][3][4], x[2][3][4]:item())
    assert.equal(t[2][3][4], x[{ 2, 3, 4 }]:item())
    assert.same({}, x[{ 2, 3, 4 }].shape)
    assert.same(t[2][4], x[{ 2, -1 }]:totable())
  end)

  it("ranges, both ends included, with steps", function()
    assert.same({ t[1], t[2] }, x[{ { 1, 2 } }]:totable())
    assert.same({ t[2], t[3] }, x[{ { 2, -1 } }]:totable())
    assert.same({ t[1], t[3] }, x[{ { 1, -1, 2 } }]:totable())
    assert.same({ { t[2][1][5], t[2][1][4] }, { t[2][4][5], t[2][4][4] } },
      x[{ 2, { 1, 4, 3 }, { 4, 5 } }]:flip(2):totable())
    assert.same({ 3, 4, 1 }, x[{ {}, {}, { 2, 2 } }].shape)
    assert.same({ 0, 4, 5 }, x[{ { 1, 0 } }].shape)
    assert.is_true(rawequal(x, x[{}]))
  end)

  it("by masks and by tensors of indices, which count from 0", function()
    local mask = pg.tensor({ 1, 0, 1 }, "uint8")
    assert.same({ t[1], t[3] }, x[mask]:totable())
    assert.same({ 56, 57, 58, 59 }, x[x:greater(55)]:totable())
    assert.same({ t[3], t[1], t[1] }, x[pg.tensor({ 2, 0, 0 }, "int64")]:totable())
    assert.same({ { t[1], t[2] }, { t[3], t[3] } }, x[pg.tensor({ { 0, 1 }, { 2, 2 } }, "int32")]:totable())
    assert.same({ t[1][3], t[1][1] }, x[{ 1, pg.tensor({ 2, 0 }, "int64") }]:totable())
    assert.same({ 3, 2, 5 }, x[{ {}, pg.tensor({ 1, 0, 0, 1 }, "uint8") }].shape)
    assert.same({ 0, 4, 5 }, x[pg.zeros({ 3 }, "uint8")].shape)
    local largest = pg.tensor { { 1, 9, 2 }, { 7, 3, 4 } }
    assert.same({ 4, 9, 2 }, { 4, largest[1][largest[1]:argmax()]:item(), 2 }) -- an index from argmax as it is
  end)

  it("the same in a trace", function()
    local index = pg.tensor({ 2, 0 }, "int64")
    local function read(v)
      return v[2], v[{ {}, -1 }], v[{ { 1, 3, 2 }, { 2, 3 }, 5 }], v[index], v[{ 1, index }]
    end
    local eager, compiled = { read(x) }, { pg.compile(read, { x })(x) }
    for k, y in ipairs(eager) do
      assert.same(y.shape, compiled[k].shape)
      assert.same(y:totable(), compiled[k]:totable())
    end
  end)
end)

describe("x[key] = value writes", function()
  it("through to x, numbers, tensors that stretch, and tables", function()
    local x = pg.zeros(2, 3)
    x[1] = 7
    x[{ 2, { 1, 3, 2 } }] = { 1, 2 }
    assert.same({ { 7, 7, 7 }, { 1, 0, 2 } }, x:totable())
    x[{ {}, 2 }] = pg.tensor { 5 }
    x[-1][-1] = pg.tensor({ 9 }, "int64")[1]
    assert.same({ { 7, 5, 7 }, { 1, 5, 9 } }, x:totable())
    x[{}] = 0
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, x:totable())
    local turned = x:t()
    turned[2] = { 3, 4 }
    assert.same({ { 0, 3, 0 }, { 0, 4, 0 } }, x:totable())
  end)

  it("where a mask is not 0, and at indices", function()
    local x = counted(3, 4)
    x[x:less(5)] = -1
    x[pg.tensor({ 0, 0, 1 }, "uint8")] = 8
    assert.same({ { -1, -1, -1, -1 }, { -1, 5, 6, 7 }, { 8, 8, 8, 8 } }, x:totable())
    x[pg.tensor({ 2, 0, 2 }, "int64")] = pg.tensor { { 1 }, { 2 }, { 3 } }
    assert.same({ { 2, 2, 2, 2 }, { -1, 5, 6, 7 }, { 3, 3, 3, 3 } }, x:totable())
    x[{ {}, pg.tensor({ 3, 1 }, "int64") }] = { 10, 20 }
    assert.same({ { 2, 20, 2, 10 }, { -1, 20, 6, 10 }, { 3, 20, 3, 10 } }, x:totable())
    x[{ 2, pg.tensor({ 0 }, "int32") }] = 4
    assert.equal(4, x[2][1]:item())
  end)

  it("from what overlaps it as if that had been copied first", function()
    for _, turn in ipairs { false, true } do
      local x = pg.arange(6):reshape(6, 1):expand(6, 4):contiguous()
      if turn then x = x:t():contiguous():t() end
      x[{ { 2, 6 } }] = x[{ { 1, 5 } }]
      assert.same({ 0, 0, 1, 2, 3, 4 }, x[{ {}, 1 }]:totable())
      x[{ { 1, 5 } }] = x[{ { 2, 6 } }]
      assert.same({ 0, 1, 2, 3, 4, 4 }, x[{ {}, 4 }]:totable())
    end
  end)

  it("in every dtype", function()
    for _, dtype in ipairs(door.dtypes) do
      local x = pg.zeros({ 2, 3 }, dtype)
      x[1] = 3
      x[{ 2, 2 }] = pg.tensor(5)
      x[{ {}, pg.tensor({ 2 }, "int64") }] = 1
      assert.same({ { 3, 3, 1 }, { 0, 5, 1 } }, x:totable())
    end
  end)
end)

describe("operations in place", function()
  it("change the tensor and whoever looks at its storage", function()
    local x = counted(2, 3)
    local row = x[2]
    assert.is_true(rawequal(x, x:add_(1):mul_(2)))
    assert.same({ 8, 10, 12 }, row:totable())
    row:sub_(pg.tensor { 8, 0, 0 }):clamp_(1, 11)
    assert.same({ { 2, 4, 6 }, { 1, 10, 11 } }, x:totable())
    x:t()[1]:zero_()
    x[{ {}, 3 }]:fill_(5)
    assert.same({ { 0, 4, 5 }, { 0, 10, 5 } }, x:totable())
    x:t():copy_(pg.ones(3, 2))
    x[1]:masked_fill_(pg.tensor({ 0, 1, 0 }, "uint8"), 3)
    assert.same({ { 1, 3, 1 }, { 1, 1, 1 } }, x:totable())
  end)
end)

describe("sizes are a list or numbers", function()
  it("wherever there are some", function()
    local x = counted(12)
    for _, y in ipairs { x:reshape(3, 4), x:reshape { 3, 4 }, x:reshape(3, -1), x:view(-1, 4) } do
      assert.same({ 3, 4 }, y.shape)
    end
    x = x:reshape(3, 4)
    assert.same({ 4, 3 }, x:permute(2, 1).shape)
    assert.same({ 4, 3 }, x:permute({ -1, 1 }).shape)
    assert.same({ 2, 3, 4 }, x:expand(2, -1, -1).shape)
    assert.same({ 6, 4 }, x:tile(2, 1).shape)
    assert.same(x:flip({ 1, 2 }):totable(), x:flip(1, 2):totable())
    assert.same({ 2, 3 }, pg.zeros(2, 3).shape)
    assert.equal("int64", pg.ones(2, 3, "long").dtype)
    assert.equal("bfloat16", pg.randn({ 2 }, { dtype = "bf16" }).dtype)
    assert.same({ 2 }, pg.rand(2).shape)
    assert.same({}, pg.zeros({}).shape)
  end)

  it("and a list stays the caller's", function()
    local order, shape = { -1, 1 }, { 2, -1 }
    local x = counted(2, 3)
    x:permute(order)
    x:reshape(shape)
    assert.same({ { -1, 1 }, { 2, -1 } }, { order, shape })
  end)
end)

describe("tensors print", function()
  local before
  before_each(function() before = pg.print_options() end)
  after_each(function() pg.print_options(before) end)

  it("integers as integers, in aligned columns", function()
    assert.equal("int64 [2] on cpu\n[123456789,         5]", tostring(pg.tensor({ 123456789, 5 }, "int64")))
    assert.equal("float32 [2,2] on cpu\n[[1.5,  -2],\n [nan, inf]]",
      tostring(pg.tensor { { 1.5, -2 }, { 0 / 0, math.huge } }))
    local large = pg.tensor({ 2 ^ 53 }, "int64") * 2 + pg.tensor({ 1 }, "int64")
    assert.matches("\n%[18014398509481985%]$", tostring(large))
    assert.equal("float32 [] on cpu\n3", tostring(pg.tensor(3)))
    assert.equal("float32 [0] on cpu\n[]", tostring(pg.zeros(0)))
  end)

  it("as far as asked, and say what is left out", function()
    local text = tostring(pg.arange(3000):reshape(10, 20, 15))
    assert.matches("^float32 %[10,20,15%] on cpu, 0 to 2999, mean 1499%.5\n", text)
    assert.equal(11, select(2, text:gsub("\n", "\n")) + 1)
    assert.same({ digits = 5, rows = 8, columns = 8 }, pg.print_options { rows = 1, columns = 2, digits = 2 })
    assert.equal("float32 [2,3] on cpu, 0.33 to 2, mean 1.2\n[[0.33, 0.67, ...],\n ...]",
      tostring((counted(2, 3) + 1) / 3))
    pg.print_options { rows = math.huge, columns = math.huge }
    assert.is_nil(tostring(pg.zeros(40, 40)):find("...", 1, true))
    assert.matches(", all nan", (function()
      pg.print_options { columns = 1 }
      return tostring(pg.full({ 2 }, 0 / 0))
    end)())
  end)
end)

it("files: what pg.save writes pg.load reads, by the name's ending", function()
  local x = pg.randn(2, 3)
  pg.save(in_folder "x.npy", x)
  assert.same(x:totable(), pg.load(in_folder "x.npy"):totable())
  pg.save(in_folder "x.safetensors", { x = x, y = x[1] })
  assert.same(x[1]:totable(), pg.load(in_folder "x.safetensors").y:totable())
  local picture = pg.randint(256, { 4, 5, 3 }, "uint8")
  pg.save(in_folder "x.png", picture)
  assert.same(picture:totable(), pg.load(in_folder "x.png"):totable())
end)

describe("random tensors", function()
  it("begin again with a seed", function()
    pg.seed(3)
    local first = { pg.randint(5, 9, { 100 }), pg.randperm(20), pg.randn_like(pg.zeros(3)) }
    pg.seed(3)
    local second = { pg.randint(5, 9, { 100 }), pg.randperm(20), pg.randn_like(pg.zeros(3)) }
    for k, x in ipairs(first) do assert.same(x:totable(), second[k]:totable()) end
    assert.equal(5, first[1]:min():item())
    assert.equal(8, first[1]:max():item())
    local seen = {}
    for _, place in ipairs(first[2]:totable()) do seen[place] = true end
    for k = 0, 19 do assert.is_true(seen[k]) end
  end)
end)

-- Likely mistakes, each with a part of its message; the place is mine.lua:2. `v` is a symbolic value.
local mistakes = {
  -- indexing
  { "x[0]", "x[0]: dimension 1 of [3,4] has entries 1 to 3, or -3 to -1 from the end; numbers from argmax, labels" },
  { "x[4]", "x[4]: dimension 1 of [3,4] has entries 1 to 3" },
  { "x[-4]", "x[-4]: dimension 1 of [3,4] has entries 1 to 3" },
  { "x[1.5]", "x[1.5]: an entry is a whole number, not 1.5" },
  { "x[{ 1, 2, 3 }]", "x[{1, 2, 3}]: 3 items for [3,4], one each dimension" },
  { "x[{ { 2, 9 } }]", "x[{{2, 9}}]: dimension 1 of [3,4] has entries 1 to 3" },
  { "x[{ { 2 } }]", "a range is { from, to }: { 2, 2 } keeps one entry, { 2, -1 } goes to the end" },
  { "x[{ { 3, 1, -1 } }]", "a range's step is at least 1; x:flip(1) turns a dimension round" },
  { "x[{ {}, '1' }]", "item 2 is a string; expected a number, {}, { from, to } or a tensor of indices" },
  { "x[{ row = 1 }]", "unexpected key 'row'; entries go by dimension" },
  { "x[x]", "indices are int32 or int64, masks uint8, not float32" },
  { "x[pg.zeros({ 4 }, 'uint8')]", "the mask does not have the sizes of the first dimensions of [3,4]" },
  { "x[pg.tensor({ 3 }, 'int64')]", "gather: index 3" },
  { "x[true]", "x[true]: expected a number, a list" },
  { "pg.tensor(5)[1]", "the tensor has no dimensions; x:item() is its number" },
  { "v[v:greater(0)]", "how many elements a mask picks is not known in a trace; write ops.where(mask, x, 0)" },
  -- writing
  { "x[1] = 'a'", "x[1] = a string; expected a number, a tensor or a table of numbers" },
  { "x[1] = pg.zeros(3)", "x[1] = [3]: the place is [4]" },
  { "x[1] = v", "x[1] = a symbolic value: x is a tensor, which stands outside of the program" },
  { "v[1] = 0", "a symbolic value does not change; make another from it: ops.where(mask, new, x)" },
  { "v:add_(1)", "add_: a symbolic value does not change; write y = x:add(...)" },
  { "v:zero_()", "zero_: a symbolic value does not change; write y = ops.zeros_like(x)" },
  { "x:copy_(v)", "copy_: expected a tensor, got a symbolic value" },
  { "x:add_(v)", "add_: x is a tensor, and what it would become a symbolic value" },
  { "n[1] = 1.5", "x[1] = 1.5: the tensor is int64" },
  { "n:add_(0.5)", "add_: the result is float32, x is int64; write y = x:add(...)" },
  { "x:add_(pg.zeros(2, 3, 4))", "add_: the result is [2,3,4], x is [3,4]; write y = x:add(...)" },
  { "x[x:greater(0)] = x", "a mask takes one number: write x:copy_(ops.where(mask, y, x))" },
  { "x[pg.tensor({ 5 }, 'int64')] = 1", "index 5 of dimension 1 of [3,4]; indices in a tensor count from 0" },
  { "x.scale = 1", "x.scale = ...: the fields of a tensor are read-only" },
  -- operators
  { "return x < x", "two tensors and <: that is one boolean in Lua; write x:less(y) to compare by element" },
  { "return x == x + 1", "two tensors and ==: that is one boolean in Lua; write x:equal(y) to compare by element" },
  { "return 'a' .. x", "text and a tensor joined by ..; write tostring(x), or x:item()" },
  -- names
  { "x.foo", "a tensor has no field or method 'foo'" },
  { "x:softmx()", "a tensor has no field or method 'softmx'; did you mean \"softmax\"?" },
  { "v:softmx()", "a symbolic value has no field or method 'softmx'; did you mean \"softmax\"?" },
  { "x:cuda()", "a tensor has no field or method 'cuda'; write x:to \"cuda\"" },
  { "x:float()", "write x:to \"float32\"" },
  { "x:backward()", "gradients come from pg.grad(function(x) ... end, { x })" },
  { "x:numpy()", "x:totable() gives numbers, x:save \"x.npy\" a file for numpy" },
  { "ops.layer_norm(x)", "unknown op 'layer_norm'; did you mean \"layernorm\"?" },
  { "ops.concta { x }", "unknown op 'concta'; did you mean \"concat\"?" },
  { "pg.softmax(x)", "'softmax'; it is an op: pg.ops.softmax" },
  { "pg.manual_seed(1)", "'manual_seed'; write pg.seed(n)" },
  { "pg.randm(3)", "'randm'; did you mean \"rand\"?" },
  { "ops.ceil(x)", "unknown op 'ceil'; write -ops.floor(-x)" },
  { "x:ceil()", "a tensor has no field or method 'ceil'; write -ops.floor(-x)" },
  { "v:where(v, 0)", "a symbolic value has no field or method 'where'; it is an op: ops.where" },
  { "x:hstack(x)", "'hstack'; did you mean ops.concat?" },
  { "ops.item(x)", "unknown op 'item'; it is a method: x:item" },
  { "pg.svd(x)", "'svd'; not here; x:save \"x.npy\" is a file for numpy" },
  { "pg.float32", "'float32'; dtypes are texts: \"float32\"" },
  -- dtypes
  { "x:to 'half'", "to: unknown dtype 'half'; there is no 16-bit float but \"bfloat16\"" },
  { "x:to 'bool'", "to: unknown dtype 'bool'; masks are \"uint8\", 1 or 0; x:not_equal(0) makes one" },
  { "x:to 'float8'", "to: unknown dtype 'float8'; expected float32, float64, bfloat16, int32, int64 or uint8" },
  { "x:to()", "to: expected a dtype or a device, got a nil" },
  { "pg.zeros(2, 'int8')", "zeros: unknown dtype 'int8'; integers are \"int32\", \"int64\" and \"uint8\"" },
  -- sizes and dimensions
  { "x:reshape(5, 5)", "reshape: [3,4] (12 elements) into [5,5]" },
  { "x:reshape(-1, -1)", "reshape: two sizes of [-1,-1] are -1" },
  { "x:reshape('a')", "reshape: expected whole numbers, as in reshape(4, 3) or reshape { 4, 3 }, got a string" },
  { "x:reshape({ 4, 3 }, 2)", "reshape: a list and further arguments; give { 4, 3 } or 4, 3" },
  { "x:reshape(2.5, -1)", "reshape: number 1 of the list is 2.5; expected a whole number" },
  { "x:t():view(12)", "does not become [12] without a copy; write x:reshape" },
  { "x:permute(1, 1)", "permute: order [1,1] of a tensor [3,4]; every dimension once" },
  { "x:expand(-1, 3, 4)", "expand: dimension 1 of [-1,3,4] is new; it needs a size" },
  { "x:expand(4, 4)", "expand: [3,4] does not stretch to [4,4]" },
  { "x:sum(0)", "sum: dimension 0 of a tensor [3,4]; expected 1 to 2, or -2 to -1 from the end" },
  { "x:sum(1, 2)", "sum: several dimensions go in a list: x:sum({ 1, 2 })" },
  { "x:sum(1, { keepdim = true })", "sum: unknown option 'keepdim'; did you mean \"keep\"?" },
  { "x:sum('rows')", "sum: the dimensions are a string" },
  { "x:select(1, 5)", "select: entry 5 of dimension 1 of [3,4], which has 1 to 3" },
  { "x:select(1, 0)", "numbers from tensors (argmax, labels) count from 0: add 1" },
  { "x:narrow(1, 3, 4)", "narrow: 4 entries from 3 of dimension 1 of [3,4], which has 1 to 3" },
  { "x:unsqueeze(7)", "unsqueeze: dimension 7; [3,4] has places 1 to 3 for a new one" },
  { "x:split(0)", "split: parts of length 0; expected a whole number from 1" },
  { "x:split({ 1, 1 })", "split: parts [1,1] of dimension 1 of [3,4]; they must add up to 3" },
  { "x:flip()", "flip: expected whole numbers" },
  { "x:clamp('a')", "clamp: limits are numbers, as in x:clamp(0, 1)" },
  { "pg.full(2, 3, 7)", "full: the sizes go in a list: pg.full({ 2, 3 }, 7)" },
  { "pg.zeros('2')", "zeros: expected whole numbers" },
  { "pg.randint(3)", "randint: expected pg.randint(high, { 2, 3 })" },
  { "pg.tensor(x)", "tensor: it is a tensor already; x:clone() copies it" },
  { "pg.tensor { x, x }", "tensor: the table holds tensors; ops.stack joins them" },
  -- ops
  { "x:norm(0.5)", "norm: p is 0.5; expected a number of at least 1, 0, or -math.huge" },
  { "x:std(1, { unbiased = false })", "std: unknown option 'unbiased'" },
  { "x:matmul(pg.zeros(3))", "matmul: a is [3,4], b is [3,1]; the inner sizes must match" },
  { "ops.einsum('ij,jk', x)", "einsum: \"ij,jk\" has more terms than operands, which are 1" },
  { "ops.einsum('ij,jk->il', x, x:t())", "einsum: 'l' of the result in \"ij,jk->il\" is in no operand" },
  { "ops.einsum('ij,jk', x, x)", "einsum: 'j' is 4 in [3,4] and 3 in [3,4]" },
  { "ops.einsum('i', x)", "einsum: 'i' for operand 1, which is [3,4]" },
  { "ops.one_hot(n, 3)", "one_hot: labels from 0 to 5; 3 classes are 0 to 2" },
  { "ops.one_hot(v)", "one_hot: the labels are float32; they must be int32 or int64" },
  { "v:nonzero()", "nonzero: how many there are is not known in a trace; write ops.where(mask, x, 0)" },
  { "v:masked_select(v)", "masked_select: how many there are is not known in a trace; write x:masked_fill(mask, 0)" },
  { "v:allclose(x)", "allclose: a symbolic value has no numbers in a trace" },
  { "pg.randn_like(v)", "randn_like of a symbolic value: it would be drawn once, when the program is traced" },
  { "x:masked_fill(pg.zeros({ 2, 3, 4 }, 'uint8'), 0)", "masked_fill: the mask is [2,3,4], it does not stretch to" },
  { "x:sort(3)", "sort: dimension 3 of a tensor [3,4]; expected 1 to 2" },
  { "x:sort(1, { reverse = true })", "sort: unknown option 'reverse'" },
  { "x:topk(5)", "topk: 5 of dimension 2 of [3,4], which has 4" },
  { "x:median(1, 2)", "median: several dimensions go in a list" },
  { "x:cumsum({ 1 })", "cumsum: the dimension is a table; expected a number" },
  { "x:cumsum()", "cumsum: the dimension is missing; expected a number" },
  { "x:prod('rows')", "prod: the dimensions are a string" },
  { "v:unique()", "unique: the number of distinct elements is not known in a trace" },
  { "x % {}", "remainder: expected tensors or numbers, got a table" },
  { "pg.grad(function(w) return (w * x:sum()):sum() end, { n })",
    "grad: a gradient with respect to a tensor [6] of int64; only real numbers have one: x:to \"float32\"" },
  { "x.sum()", "sum: expected a tensor, got nil; as a method it takes a colon, x:sum()" },
  { "x.add(1)", "add: expected tensors or numbers, got nil" },
  { "ops.where(x, x)", "where: choice 2 is nil; expected a tensor or a number, as in ops.where(mask, x, 0)" },
  { "x:tril(0.5)", "tril: the diagonal is 0.5; expected a whole number" },
  { "x:unique(true)", "unique: the options are a boolean; expected a table with counts, inverse" },
  { "pg.grad(function(w) return w:sum() end, x)",
    "grad: the function's inputs are a tensor; expected a list of tensors, pg.grad(f, { x })" },
  { "pg.compile(x, { x })", "compile: expected a function, got a table" },
  -- files, printing
  { "pg.save(x, 'x.npy')", "save: the file's name comes first: pg.save(\"x.npy\", x)" },
  { "pg.save('x.pt', x)", "save: 'x.pt' takes a table of tensors by name" },
  { "pg.save('x.safetensors', x)", "save: 'x.safetensors' takes a table of tensors by name" },
  { "pg.print_options { precision = 3 }",
    "print_options: unknown option 'precision'; expected digits, rows or columns" },
}

describe("a mistake gets a message at its line:", function()
  local program = require("perigee.core.program").new "mistakes"
  local v = program:input("v", { 3, 4 })
  for _, case in ipairs(mistakes) do
    it(case[1], function()
      local code = case[1]
      if not (code:match "^return" or code:find "%] = " or code:find "%.scale = ") then code = "local y = " .. code end
      local chunk = assert(loadstring("-- a script\n" .. code, "@mine.lua"))
      setfenv(chunk, setmetatable({ pg = pg, ops = ops, x = counted(3, 4), n = pg.arange(6, "int64"), v = v },
        { __index = _G }))
      local message = message_of(chunk)
      assert.equal("mine.lua:2: ", message:sub(1, 12))
      assert.is_truthy(message:find(case[2], 1, true), message)
    end)
  end
end)

describe("a name of PyTorch's that is one expression here:", function()
  local torch = require "perigee.core.torch"
  local at_hand = {
    pg = pg, ops = ops, math = math, x = counted(2, 3) + 1, y = counted(2, 3) * 2 - 3, u = counted(3), v = counted(3),
    index = pg.tensor({ 1, 0 }, "int64"), labels = pg.tensor({ 0, 2, 1, 2 }, "int64"), dim = 1, k = 2, low = 2,
    high = 5,
  }
  for name, expression in pairs(torch.written) do
    it(name, function()
      local value = setfenv(assert(loadstring("return " .. expression)), at_hand)()
      assert.is_not_nil(value)
      local other = name ~= "normal" and name ~= "dim" and name ~= "repeat"
      assert.is_true(not other or rawget(ops, name) == nil) -- there is nothing better to write
    end)
  end

  it("some of them by their numbers", function()
    local function of(name, x, y)
      return setfenv(assert(loadstring("return " .. torch.written[name])),
        { ops = ops, math = math, x = pg.tensor(x), y = y and pg.tensor(y) })():totable()
    end
    assert.same({ 2, -1, 0 }, of("ceil", { 1.5, -1.5, -0.0 }))
    assert.same({ 1, -1, 0 }, of("trunc", { 1.5, -1.5, 0.5 }))
    assert.same({ 1, -1, 1 }, of("fmod", { 7, -7, 7 }, { 3, 3, -3 }))
    assert.same({ 0.5, -0.5 }, of("frac", { 1.5, -1.5 }))
    assert.same({ 0, 100 }, of("softplus", { -200, 100 }))
    assert.same({ { 2, 1 }, { 4, 3 } }, of("fliplr", { { 1, 2 }, { 3, 4 } }))
    assert.same({ { 2, 4 }, { 1, 3 } }, of("rot90", { { 1, 2 }, { 3, 4 } }))
    assert.equal(3, of("nansum", { 1, 0 / 0, 2 }))
  end)
end)

describe("what Lua would do silently with a tensor", function()
  local language = require "perigee.core.language"

  it("is an error in recipes, scripts and the REPL", function()
    local x = counted(3, 4)
    local v = require("perigee.core.program").new "walked":input("v", { 3, 4 })
    for name, walk in pairs(language) do
      for _, t in ipairs { x, v } do
        local message = message_of(function() return walk(t) end)
        assert.is_truthy(message:find(name .. " of a tensor [3,4]: write ", 1, true), message)
      end
      assert.is_not_nil((walk { 5 }))
    end
    local seen = {}
    for k, entry in language.ipairs(x:unbind()) do seen[k] = entry:totable() end
    assert.same(x:totable(), seen)
    assert.equal(2, select(2, language.unpack({ 1, 2, 3 }, 1, 2)))
  end)

  it("there by their plain names", function()
    local function written(name, text)
      local file = assert(io.open(in_folder(name), "w"))
      file:write(text)
      file:close()
      return in_folder(name)
    end
    local walk = "for _ in ipairs(pg.zeros(2)) do end\n"
    local script = written("walk.lua", "shared = 1\nassert(_G.shared == 1)\n" .. walk)
    local message = message_of(require("perigee.cli.run").run, { script })
    assert.is_truthy(message:find("walk.lua:3: ipairs of a tensor [2]", 1, true), message)
    local recipe = written("recipe.lua", 'local pg = require "perigee"\n' .. walk)
    message = message_of(require("perigee.recipe.load").load, recipe)
    assert.is_truthy(message:find("recipe.lua:2: ipairs of a tensor [2]", 1, true), message)
  end)

  it("a comparison with a number says what to write", function()
    local failure = require "perigee.base.failure"
    local x = counted(3)
    for _, compare in ipairs { function() return x < 3 end, function() return 3 <= x end } do
      local _, message = xpcall(compare, failure.handler)
      assert.matches("attempt to compare %a+ with %a+; if one of them is a tensor: ops.less%(x, y%) compares", message)
      local _, typed = xpcall(compare, require("perigee.sandbox.chunk").handler(function() return false end))
      assert.matches("ops.less%(x, y%) compares by element", typed)
    end
    local _, others = xpcall(function() return {} < {} end, failure.handler)
    assert.is_nil(tostring(others):find("tensor:", 1, true))
  end)
end)

-- Ops that the library's own layers, losses and optimisers call, each with what they hand over.
local inner = {}
for name in ([[accumulate activation_backward adamw arange_like attention_alignment copy feature_alignment fill
  gated_residual gradient_fork images images_to_bytes interpolant layernorm_modulate lion narrow_backward patchify
  random_integers random_normal random_permutation random_uniform resize_tokens square_sum timestep_embedding
  unpatchify]]):gmatch "%S+" do inner[name] = true end

it("an op answers wrong arguments with a message of its own, at the user's line", function()
  local x, wrong = counted(3, 4), {}
  local calls = {
    { n = 0 }, { n = 1, 3 }, { n = 1, "a" }, { n = 1, {} }, { n = 2, x, "a" }, { n = 2, x, {} }, { n = 2, x },
    { n = 2, x, true }, { n = 3, x, 1, "a" }, { n = 3, x, x, "a" }, { n = 3, x, 1, { bad = 1 } },
  }
  for name, body in pairs(ops) do
    for k, arguments in ipairs(inner[name] and {} or calls) do
      local fine, message = pcall(body, unpack(arguments, 1, arguments.n))
      if not fine and message:find("lua/perigee/", 1, true) then
        wrong[#wrong + 1] = ("%s with arguments %d: %s"):format(name, k, message)
      end
    end
  end
  assert.same({}, wrong)
end)

describe("docs/tensors.md", function()
  local page = require("perigee.io.files").read(door.home .. "/docs/tensors.md")

  it("shows what comes out", function()
    local count = 0
    for block in page:gmatch "```lua\n(.-)```" do
      local printed, expected = {}, {}
      for line in block:gmatch "[^\n]+" do expected[#expected + 1] = line:match "%-%-> (.*)$" end
      local function show(...)
        local texts = { ... }
        for k = 1, select("#", ...) do texts[k] = tostring(texts[k]) end
        for line in (table.concat(texts, "\t") .. "\n"):gmatch "(.-)\n" do printed[#printed + 1] = line end
      end
      setfenv(assert(loadstring(block, "=docs/tensors.md")), setmetatable({ pg = pg, ops = ops, print = show },
        { __index = _G }))()
      assert.same(expected, printed)
      count = count + #printed
    end
    assert.is_true(count > 90)
  end)

  it("has a table in which everything runs", function()
    local x = counted(3, 4) / 7
    local at_hand = setmetatable({
      pg = pg, ops = ops, x = x, y = x + 1, v = counted(4), m = x:greater(1), i = pg.tensor({ 2, 0 }, "int64"),
      i3 = pg.tensor({ 2, 0, 3 }, "int64"), i4 = pg.zeros({ 3, 4 }, "int64"), path = in_folder "x.npy",
    }, { __index = _G })
    local rows = 0
    for row in page:match "| PyTorch | here.-\n|[-|]+\n(.*)":gsub("\\|", "or"):gmatch "|[^\n]*" do
      for code in row:match "^|[^|]*|([^|]*)|":gmatch "`([^`]+)`" do
        local chunk, message = loadstring("return " .. code)
        if not chunk then chunk, message = loadstring(code) end
        setfenv(assert(chunk, message), at_hand)()
      end
      rows = rows + 1
    end
    assert.is_true(rows > 35)
  end)
end)

describe("calls as PyTorch writes them", function()
  it("take options alone, and sizes as numbers", function()
    local x = pg.tensor { 2, 3, 1 }
    assert.same({ 3, 2, 1 }, (x:sort { descending = true }):totable())
    assert.same({ 1, 0, 2 }, x:argsort({ descending = true }):totable())
    assert.same({ 2, 3 }, pg.empty(2, 3).shape)
    assert.equal("int64", pg.empty({ 2 }, "int64").dtype)
  end)
end)
