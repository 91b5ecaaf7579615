--- The unpickler by itself: mutations need no zip archive around them.
local check = require "tests.fuzz.check"
local pickle = require "perigee.io.pickle"

local globals = {
  ["collections.OrderedDict"] = { call = function() return pickle.dict "OrderedDict" end,
                                  new = function() return pickle.dict "OrderedDict" end },
  ["argparse.Namespace"] = { new = function() return pickle.dict "argparse.Namespace" end },
  ["torch.Size"] = { call = function(arguments) return arguments[1] end },
  ["torch.float32"] = { value = { storage = "F32" } },
}

return { read = function(text)
  local _, after = pickle.read(text, { path = "x.pt", globals = globals, persistent = function(id) return id end })
  check.demand(after > 1 and after <= #text + 1, "it ended at byte %s of %d", tostring(after), #text)
end }
