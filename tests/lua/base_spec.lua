-- Small things that every room may use: tables and sizes.
local size = require "perigee.base.size"
local tables = require "perigee.base.tables"

describe("a table", function()
  it("is copied, not its values", function()
    local inner = {}
    local t = { 1, 2, name = inner }
    local copy = tables.copy(t)
    assert.same(t, copy)
    copy[1] = 5
    assert.equal(1, t[1])
    assert.equal(inner, copy.name)
  end)

  it("is merged with others: of one key, the last one's entry stays", function()
    local first = { a = 1, b = 2 }
    assert.same({ a = 1, b = 3, c = 4 }, tables.merged(first, nil, { b = 3 }, { c = 4 }))
    assert.same({ a = 1, b = 2 }, first)
    assert.same({}, tables.merged(nil))
  end)

  it("has its keys in order: numbers, texts, the rest", function()
    assert.same({ -1, 2, 10, "10", "A", "a", "b", false, true },
      tables.sorted_keys { [10] = 0, [2] = 0, [-1] = 0, b = 0, a = 0, A = 0, ["10"] = 0, [true] = 0, [false] = 0 })
  end)
end)

describe("a size", function()
  it("is written in the unit that suits it", function()
    assert.equal("0.5 KiB", size.text(512))
    assert.equal("1023.0 KiB", size.text(1023 * 2 ^ 10))
    assert.equal("1.0 MiB", size.text(2 ^ 20))
    assert.equal("1023.0 MiB", size.text(1023 * 2 ^ 20))
    assert.equal("1.50 GiB", size.text(1.5 * 2 ^ 30))
  end)
end)

describe("environment", function()
  local environment = require "perigee.base.environment"
  local cache_folder = require("perigee.teacher").cache_folder
  local getenv, values = os.getenv, {}
  before_each(function() os.getenv = function(name) return values[name] end end) -- luacheck: ignore 122
  after_each(function() os.getenv = getenv end) -- luacheck: ignore 122

  it("takes what is empty as not set", function()
    for expected, given in pairs {
      ["/c"] = { PERIGEE_CACHE = "/c", HOME = "/h" }, ["/h/.cache/perigee"] = { PERIGEE_CACHE = "", HOME = "/h" },
      ["/x/perigee"] = { XDG_CACHE_HOME = "/x", HOME = "/h" }, ["./.cache/perigee"] = { HOME = "" },
    } do
      values = given
      assert.equal(expected, cache_folder())
    end
    values = { A = "", B = "b" }
    assert.same({ nil, "b" }, { environment.get "A", environment.get "B" })
    values = { XDG_STATE_HOME = "", HOME = "/h" }
    assert.equal("/h/.local/state", environment.folder("XDG_STATE_HOME", ".local/state"))
  end)
end)

describe("a whole file", function()
  local whole_file, open = require "perigee.base.whole_file", io.open
  after_each(function() io.open = open end) -- luacheck: ignore 122

  it("is read again after a signal, whether it came at the opening or in the reading", function()
    local path, calls = os.tmpname(), {}
    local file = open(path, "wb")
    file:write "a\0b"
    file:close()
    io.open = function(...) -- luacheck: ignore 122
      calls[#calls + 1] = "open"
      if #calls == 1 then return nil, path .. ": Interrupted system call", 4 end
      if #calls > 2 then return open(...) end
      return { close = function() end, read = function() return nil, "Interrupted system call", 4 end }
    end
    assert.equal("a\0b", whole_file.read(path))
    assert.equal(3, #calls)
    io.open = open -- luacheck: ignore 122
    os.remove(path)
    assert.same({ nil, path .. ": No such file or directory", 2 }, { whole_file.read(path) })
    assert.same({ nil, "/: Is a directory", 21 }, { whole_file.read "/" })
    assert.matches("^Name:", whole_file.read "/proc/self/status")
  end)
end)
