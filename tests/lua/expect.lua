--- What tests expect of calls that fail.
local assert = require "luassert"

local M = {}

--- The message of a call that must fail.
function M.message_of(f, ...)
  local fine, message = pcall(f, ...)
  assert.is_false(fine, "expected an error")
  return tostring(message)
end

--- A call without arguments must fail, and its message have every given text in it.
function M.fails(body, ...)
  local message = M.message_of(body)
  for _, text in ipairs { ... } do
    assert.is_truthy(message:find(text, 1, true), ("'%s' is not in: %s"):format(text, message))
  end
end

return M
