--- The order of the C folders, from every #include: kernels -> base <- runtime. A kernel's folder includes another
--- only where the table below says so.
local files = require "perigee.io.files"
local core = require "perigee.core.ffi"

--- What an op's folder may include of other ops' folders.
local allowed = {
  attention_alignment = { "attention" }, -- the passes of attention's backward, which it extends
  convolution = { "matmul" }, -- the register-tile product
  group_norm = { "activation" }, -- the activation on top
  matmul = { "activation", "reduce" }, -- activations as epilogues; sums that no epilogue makes
}

--- Every file below a folder: { path relative to it, text }.
local function sources(folder)
  local found = {}
  local function walk(path)
    for _, name in ipairs(files.list(folder .. path)) do
      local child = path .. "/" .. name
      if files.kind(folder .. child) == "directory" then
        walk(child)
      elseif name:match "%.[ch]$" or name:match "%.cu$" then
        found[#found + 1] = { path = child:sub(2), text = files.read(folder .. child) }
      end
    end
  end
  walk ""
  return found
end

--- Calls body(file, included) for every #include "..." of a folder's sources.
local function each_include(room, body)
  local files_of_room = sources(core.home .. "/" .. room)
  assert.is_true(#files_of_room > 3)
  for _, file in ipairs(files_of_room) do
    for included in file.text:gmatch '#include%s+"([^"]+)"' do body(file.path, included) end
  end
end

--- Headers that a room's sources find by name: its own, and those of the rooms below it.
local function expect_only(room, ...)
  local homes = {}
  for _, folder in ipairs { room, ... } do homes[#homes + 1] = core.home .. "/" .. folder end
  local wrong = {}
  each_include(room, function(path, included)
    local beside = core.home .. "/" .. room .. "/" .. (path:match "^(.*/)" or "") .. included
    local found = files.exists(beside)
    for _, home in ipairs(homes) do found = found or files.exists(home .. "/" .. included) end
    if not found or included:find("..", 1, true) then
      wrong[#wrong + 1] = ("%s/%s includes %s"):format(room, path, included)
    end
  end)
  assert.same({}, wrong)
end

describe("the includes of", function()
  it("base stay in base", function() expect_only "base" end)

  it("the runtime reach itself and base, no kernel", function() expect_only("runtime", "base") end)

  it("kernels reach kernels and base, not the runtime", function() expect_only("kernels", "base") end)

  it("an op's folder name another op's only where the table allows it", function()
    local used, wrong = {}, {}
    each_include("kernels", function(path, included)
      local op, other = path:match "^([%w_]+)/", included:match "^([%w_]+)/"
      if not other or op == other then return end
      if not op then
        wrong[#wrong + 1] = ("kernels/%s, shared by all, includes %s"):format(path, included)
      else
        local fine = false
        for _, name in ipairs(allowed[op] or {}) do fine = fine or name == other end
        if not fine then wrong[#wrong + 1] = ("kernels/%s includes %s"):format(path, included) end
        used[op .. " -> " .. other] = true
      end
    end)
    assert.same({}, wrong)
    for op, others in pairs(allowed) do
      for _, other in ipairs(others) do
        assert(used[op .. " -> " .. other], ("the table allows %s -> %s, which nobody uses"):format(op, other))
      end
    end
  end)
end)
