--- Latents to pictures by an autoencoder, a few at a time. The program for so many is planned once: whatever their
--- number, memory is the autoencoder's weights and that plan's. Large latents go in tiles.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local files = require "perigee.io.files"
local ops, tensor = core.ops, core.tensor

local M = {}

M.BATCH = 4 -- latents at a time, unless a caller says otherwise

---@class perigee.Decoder
---@field model perigee.AutoencoderKl|perigee.AutoencoderTiny
---@field size integer[]    { height, width } of the latents
---@field shape integer[]   { height, width, channels } of the pictures
---@field batch integer     latents at a time
---@field bytes integer     of the plan, without the weights
local Decoder = {}
Decoder.__index = Decoder

--- An error unless a recipe's autoencoder decodes what its student makes, and has weights.
---@param model any
---@param student perigee.Module
function M.check(model, student)
  if type(model.decode) ~= "function" or not model.shrink then
    core_ffi.fail("decode is a %s; expected an autoencoder, such as pg.models.autoencoder_kl { weights = \"FILE\" }",
      model.name or "table")
  elseif model.latent ~= student.channels then
    core_ffi.fail("the student makes latents of %d channels, the %s decodes %d", student.channels, model.name,
      model.latent)
  elseif not model.decoder then
    core_ffi.fail("decode: %s has no decoder", model.weights or "the " .. model.name)
  elseif not model:is_materialised() and not (model.weights and files.exists(model.weights)) then
    core_ffi.fail("decode: %s", model.weights and "no file " .. model.weights
      or ("the %s has no weights; give the option 'weights'"):format(model.name))
  end
end

--- The shape { height, width, channels } of the pictures of latents of a size { height, width }.
function M.shape(model, size) return { model.shrink * size[1], model.shrink * size[2], model.pictures } end

--- Options of a command that decodes (base/options.lua): `tile` and `pixels`.
---@return perigee.Option[]
function M.command_options()
  return {
    { name = "tile", type = "integer", min = 4,
      help = "decode larger latents in tiles of that side, in latents' pixels, which fade into each other" },
    { name = "pixels", choices = { "floor", "dit" }, default = "floor",
      help = "values to bytes: floor is 255(x+1)/2, dit is 127.5x+128, both cut off" },
  }
end

--- What of a command's options decides the pictures, for the record next to them.
---@param path string  of the weights
function M.settings(path, options)
  return { decode = ("%08x"):format(files.crc32(path, 0, files.size(path))), tile = options.tile,
    pixels = options.pixels }
end

--- The same of a command that samples a run, with `decode`.
---@return perigee.Option[]
function M.run_options()
  return {
    { name = "decode", type = "string", value = "FILE",
      help = "an autoencoder's weights, which make pictures of latents; none: latents stay (default: the recipe's)" },
    unpack(M.command_options()),
  }
end

--- The autoencoder that --decode names; nil: the recipe's, false: none.
---@param options table  values of run_options()
function M.of_command(options)
  if options.decode == "none" then return false end
  return options.decode and require("perigee.models").autoencoder { weights = options.decode } or nil
end

--- Adds to `told` what decides a run's pictures: of the decoding, only what is asked for, or the autoencoder that the
--- recipe names.
---@param told table
---@param options table  values of run_options()
---@param decode? table|false  of_command()'s
function M.tell(told, options, recipe, decode)
  if decode == false then return end
  local model = decode or recipe.decode
  local settings = model and M.settings(model.weights, options) or { pixels = options.pixels }
  if not model and settings.pixels == "floor" then settings.pixels = nil end
  for key, value in pairs(settings) do told[key] = value end
end

---@class perigee.DecoderOptions
---@field batch? integer   latents at a time: 4
---@field tile? integer    side of the tiles in which larger latents are decoded, in their pixels; none: whole
---@field device? string   cpu
---@field unscale? fun(z: perigee.Operand): perigee.Operand  latents as the autoencoder has them, of those given; by
---  default by the model's scale and shift

--- Loads the weights, unless they are there, and plans. `size` is { height, width } of the latents.
---@param options? perigee.DecoderOptions
---@return perigee.Decoder
function M.open(model, size, options)
  local o = options or {}
  local self = setmetatable({ model = model, size = size, batch = o.batch or M.BATCH, device = o.device or "cpu",
    shape = M.shape(model, size) }, Decoder)
  self.tile = { math.min(o.tile or size[1], size[1]), math.min(o.tile or size[2], size[2]) }
  if not model:is_materialised() then
    self.flat = model:materialise({ device = self.device, purpose = "signal" }).flat
  end
  local p = core.program.new "decode"
  local x = p:input("latents", { self.batch, model.latent, self.tile[1], self.tile[2] }, "float32")
  local unscale = o.unscale or function(z) return z * (1 / model.scale) + model.shift end
  local pictures = p:trace(function(z) return model:decode(unscale(z)) end, x)
  self.executable = core.executable.compile(p, { { name = "pictures", value = pictures } },
    { device = self.device, purpose = "signal" })
  self.bytes = self.executable.plan.arena_bytes
  return self
end

--- float32 [n,..] of at most `batch` latents of a tile's size: pictures on the CPU.
local function decode(self, x)
  local n = x.shape[1]
  if n < self.batch then
    local rest = { self.batch - n, unpack(x.shape, 2) }
    x = ops.concat({ x, ops.fill(rest, { value = 0, dtype = "float32" }) }, 1)
  end
  local pictures = self.executable:run({ latents = x:to(self.device) }).pictures:clone { device = "cpu" }
  return n < self.batch and pictures:narrow(1, 1, n) or pictures
end

--- Where tiles begin along an axis: each overlaps the one before by a quarter or more, and the last ends at the edge.
local function begins(size, tile)
  local list, step = { 0 }, math.max(tile - math.floor(tile / 4), 1)
  while list[#list] + tile < size do list[#list + 1] = math.min(list[#list] + step, size - tile) end
  return list
end

--- The weights of a tile's pixels along an axis: they rise and fall over the overlap, where there is a neighbour.
local function ramp(length, overlap, before, after)
  local list = {}
  for k = 1, length do
    local rise = before and (k - 0.5) / overlap or 1
    local fall = after and (length - k + 0.5) / overlap or 1
    list[k] = math.min(rise, fall, 1)
  end
  return list
end

--- Adds a tile's pictures, weighted, to sums that begin at a pixel.
local function add_tile(sums, total, pictures, weight, down, across)
  local h, w = pictures.shape[3], pictures.shape[4]
  local function at(t) return t:narrow(3, down + 1, h):narrow(4, across + 1, w) end
  at(sums):copy_(at(sums) + pictures * weight)
  at(total):copy_(at(total) + weight)
end

--- Pictures of at most `batch` latents, put together from tiles that fade into each other.
local function decode_tiles(self, x)
  local n, tile, shrink = x.shape[1], self.tile, self.model.shrink
  local height, width, channels = unpack(self.shape)
  local sums = ops.fill({ n, channels, height, width }, { value = 0, dtype = "float32" })
  local total = ops.fill({ 1, 1, height, width }, { value = 0, dtype = "float32" })
  local function axis(begin, k)
    local overlap = math.max(math.floor(tile[k] / 4), 1) * shrink
    return ramp(shrink * tile[k], overlap, begin > 0, begin + tile[k] < self.size[k])
  end
  for _, down in ipairs(begins(self.size[1], tile[1])) do
    for _, across in ipairs(begins(self.size[2], tile[2])) do
      tensor.tidy(function()
        local part = x:narrow(3, down + 1, tile[1]):narrow(4, across + 1, tile[2]):contiguous()
        local weight = tensor.tensor(axis(down, 1), { 1, 1, shrink * tile[1], 1 })
          * tensor.tensor(axis(across, 2), { 1, 1, 1, shrink * tile[2] })
        add_tile(sums, total, decode(self, part), weight, shrink * down, shrink * across)
      end)
    end
  end
  return sums / total
end

--- Pictures of latents as students make them [n,C,h,w], `batch` at a time: each piece, float32 [b,channels,H,W] on the
--- CPU with values about in [−1, 1], goes to `convert`; the results are joined.
---@param x perigee.Tensor
---@param convert fun(pictures: perigee.Tensor): perigee.Tensor
---@return perigee.Tensor
function Decoder:decode(x, convert)
  local whole = self.tile[1] == self.size[1] and self.tile[2] == self.size[2]
  local parts = {}
  for first = 1, x.shape[1], self.batch do
    parts[#parts + 1] = tensor.tidy(function()
      local part = x:narrow(1, first, math.min(self.batch, x.shape[1] - first + 1)):to("float32"):contiguous()
      return convert((whole and decode or decode_tiles)(self, part))
    end)
  end
  return #parts == 1 and parts[1] or ops.concat(parts, 1)
end

--- Gives the plan's memory back, and the weights' if open() loaded them.
function Decoder:close()
  self.executable:free()
  if not self.flat then return end
  self.model:dematerialise()
  self.flat:free()
end

return M
