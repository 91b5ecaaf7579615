--- Opens a device and says what it is: a plugin that was built elsewhere runs here, or an error says why not.
---
---   perigee run tests/gpu/device.lua DEVICE
local device = require "perigee.core.device"

device.choose(arg[1])
print(device.description(arg[1]))
