--- How values in [−1, 1] [B,C,H,W] become bytes [B,H,W,C]; published figures depend on it.
local ops = require "perigee.core.ops"

local M = {}

--- 255·(x + 1)/2, the fraction cut off: SiT's, REPA's and HASTE's.
function M.floor(x) return ops.images_to_bytes(x) end

--- 127.5·x + 128, the fraction cut off: DiT's, and that of ADM, so half a level more.
function M.dit(x)
  return ops.permute(ops.clamp(ops.mul(x, 127.5) + 128, 0, 255):to "uint8", { 1, 3, 4, 2 }):contiguous()
end

return M
