-- The fuzzed readers in Lua on their kept inputs, and on those of other tests, without a fuzzer (run, check.lua).
local check = require "tests.fuzz.check"
local files = require "perigee.io.files"

local home = check.home
local ALSO = { pytorch = "pytorch", zip = "pictures", tar = "pictures" } -- fixtures that seed them too

local function inputs(name)
  local list, folders = {}, { home .. "/tests/fuzz/corpus/" .. name }
  if ALSO[name] then folders[2] = home .. "/tests/oracle/fixtures/" .. ALSO[name] end
  for _, folder in ipairs(folders) do
    for _, file in ipairs(files.exists(folder) and files.list(folder) or {}) do
      list[#list + 1] = folder .. "/" .. file
    end
  end
  return list
end

describe("a fuzzed reader on kept inputs:", function()
  teardown(check.close)

  for _, file in ipairs(files.list(home .. "/tests/fuzz/readers")) do
    local name = file:match "^(.*)%.lua$"
    it(name, function()
      local run, list = check.open(home .. "/tests/fuzz/readers/" .. file), inputs(name)
      assert.is_true(#list > 0, "no inputs")
      for _, input in ipairs(list) do
        local fine, message = pcall(run, files.read(input))
        assert.is_true(fine, ("%s: %s"):format(input, tostring(message)))
      end
    end)
  end

  it("a reader that breaks its promise is told", function()
    local path = os.tmpname()
    local function says(body)
      files.write(path, "return { file = 'x', read = function(text, path) " .. body .. " end }")
      return select(2, pcall(check.open(path), "text"))
    end
    assert.matches("does not name the file", says "error('no', 0)")
    assert.matches("is a defect", says "error('attempt to index x in ' .. path, 0)")
    assert.matches("is a table", says "error {}")
    assert.is_nil(says "error(path .. ': no', 0)")
    os.remove(path)
  end)
end)
