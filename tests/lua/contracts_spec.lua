--- The kernels' contracts, kernels/<op>/<op>.h, name the views and attributes that C and CUDA read. They are held
--- against the ops that hand these over; and nobody counts them.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local op = require "perigee.core.op"
require "perigee.core.ops"

local folder = core.home .. "/kernels"

--- Code that takes views as they come, or writes a call: file -> why.
local numbered = {
  ["copy/check.h"] = "concat's inputs are a list",
  ["copy/cpu.c"] = "concat's inputs are a list",
  ["copy/cuda.cu"] = "concat's inputs are a list",
  ["cuda_cudnn_choice.h"] = "any op's call gets memory to be timed in",
  ["matmul/cuda_product.c"] = "makes a call of reduce",
}

local function names(text)
  local list = {}
  for name in text:gmatch "[%w_]+" do list[#list + 1] = name end
  return list
end

--- Kernel -> { views, ints, floats, comment }, from its lines in the headers.
local function contracts()
  local found = {}
  for _, folder_name in ipairs(files.list(folder)) do
    local path = ("%s/%s/%s.h"):format(folder, folder_name, folder_name)
    local text = files.exists(path) and files.read(path) or ""
    local comment = ""
    for at, line in ("\n" .. text):gmatch "()\n([^\n]*)" do
      local macro = line:match "^PG_([A-Z]+)%("
      if line:match "^/?%s?%*" then comment = comment .. "\n" .. line end -- all since the last kernel
      if macro == "KERNEL" or macro == "INTS" or macro == "FLOATS" then
        local list = names(text:match("%b()", at))
        local kernel = table.remove(list, 1)
        if macro == "KERNEL" then found[kernel], comment = { ints = {}, floats = {}, comment = comment }, "" end
        found[kernel][macro == "KERNEL" and "views" or macro:lower()] = list
      end
    end
  end
  return found
end

--- Every source below kernels/: { path relative to it, text }.
local function sources()
  local found = {}
  local function read(path)
    if path:match "%.[ch]$" or path:match "%.cu$" then
      found[#found + 1] = { path = path, text = files.read(folder .. "/" .. path) }
    end
  end
  for _, name in ipairs(files.list(folder)) do
    if files.kind(folder .. "/" .. name) == "directory" then
      for _, file in ipairs(files.list(folder .. "/" .. name)) do read(name .. "/" .. file) end
    else
      read(name)
    end
  end
  return found
end

describe("the contract of a kernel", function()
  local found, users = contracts(), {}
  for _, definition in pairs(op.defined) do
    local kernel = definition.kernel or definition.name
    if not definition.view then users[kernel] = (users[kernel] or 0) + 1 end
  end

  for name, definition in pairs(op.defined) do
    local kernel = definition.kernel or name
    if not definition.view then
      it("names views and attributes of " .. name, function()
        local contract = assert(found[kernel], "no PG_KERNEL line names " .. kernel)
        local views = { unpack(definition.outputs) }
        for _, input in ipairs(definition.inputs) do views[#views + 1] = input end
        assert.same(views, contract.views)
        assert.same(definition.ints, contract.ints)
        if users[kernel] == 1 then
          assert.same(definition.floats, contract.floats)
        else -- one kernel for many ops, each with its own word for a constant
          assert.is_true(#definition.floats <= #contract.floats)
        end
      end)
    end
  end

  it("stands in the table, and an op uses it", function()
    local count = 0
    for kernel in pairs(found) do
      count = count + 1
      assert(core.C.pg_kernel_find(kernel) >= 0, kernel .. " isn't in the table of kernels")
      assert(users[kernel], "no op uses " .. kernel)
    end
    assert.equal(count, core.C.pg_kernel_count())
    for k = 0, count - 1 do assert(found[ffi.string(core.C.pg_kernel_name(k))]) end
  end)

  it("has a word on each of its names", function()
    for kernel, contract in pairs(found) do
      for _, list in ipairs { contract.views, contract.ints, contract.floats } do
        for _, name in ipairs(list) do
          local word = name:gsub("%d+$", function(n) return tonumber(n) > 1 and "1" or n end)
          local said = contract.comment:find("%f[%w_]" .. word .. "%f[^%w_]")
            or contract.comment:find "attributes:? as above"
          assert(said, ("the comment above %s says nothing of %s"):format(kernel, name))
        end
      end
    end
  end)

  it("is how kernels read a call: none counts views or attributes", function()
    local wrong, seen = {}, {}
    for _, source in ipairs(sources()) do
      for line in source.text:gmatch "[^\n]+" do
        if line:find "call%->[vif]%f[^%w_]" or line:find "%.[vif]%[" or line:find "pg_view_at" then
          seen[source.path] = true
          if not numbered[source.path] then wrong[#wrong + 1] = source.path .. ": " .. line end
        end
      end
    end
    assert.same({}, wrong)
    for path in pairs(numbered) do assert(seen[path], path .. " needs no exception") end
  end)
end)
