--- perigee decode: pictures of latents that lie in a file.
local M = {
  summary = "make pictures of latents",
  usage = "LATENTS.npz|LATENTS.npy --vae FILE [options]",
  description = "Decodes latents [N,C,h,w], as `perigee sample` writes them, by an autoencoder's weights (Stable\n"
    .. "Diffusion's, VA-VAE's, TAESD's; what FILE is, its names and shapes say) into a PNG grid, a folder of PNGs, an\n"
    .. ".npz for evaluators, or an .npy. A folder or .npz that was interrupted is taken up again.",
}

function M.options()
  local list = {
    { name = "vae", type = "string", value = "FILE", help = "the autoencoder's weights" },
    { name = "out", type = "string", help = "FILE.png (a grid), FILE.npz, FILE.npy, or a folder" },
    { name = "columns", type = "integer", min = 1, help = "columns of a PNG grid" },
    { name = "batch", type = "integer", default = 4, min = 1,
      help = "latents at a time; changes nothing but speed and memory" },
    { name = "scale", type = "number", help = "of the latents: (latent - shift) * scale is in the file (default: the "
      .. "autoencoder's)" },
    { name = "shift", type = "number", help = "as above" },
    { name = "device", type = "string", default = "cpu", help = "cpu or cuda" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  }
  for _, option in ipairs(require("perigee.sampling.decoder").command_options()) do list[#list + 1] = option end
  return list
end

--- The array of latents in a file: its header, and a function that reads `count` of them from number `first`, from 0.
local function open(path)
  local core, files = require "perigee.core.ffi", require "perigee.io.files"
  local header = path:match "%.npz$" and require("perigee.io.npz").header(path, "arr_0")
    or require("perigee.io.npy").header(path)
  local shape = header.shape
  if #shape ~= 4 or header.dtype ~= "float32" then
    error(("%s: %s %s; expected latents, float32 [N,C,h,w]"):format(path, header.dtype, core.shape_text(shape)), 0)
  end
  local bytes = 4 * shape[2] * shape[3] * shape[4]
  return shape, function(first, count)
    local t = require("perigee.core.tensor").empty({ count, unpack(shape, 2) }, "float32")
    files.read_tensor(path, header.offset + first * bytes, t)
    return t
  end
end

--- Decodes what the sink lacks; returns how long the plan's memory is.
local function decode(options, model, shape, read, sink, progress)
  local core = require "perigee.core.ffi"
  local decoder = require("perigee.sampling.decoder").open(model, { shape[3], shape[4] },
    { batch = math.min(options.batch, shape[1]), tile = options.tile, device = options.device })
  progress:line("%d at a time, in %s and the weights", decoder.batch, require("perigee.base.size").text(decoder.bytes))
  local to_bytes = require("perigee.sampling.pixels")[options.pixels]
  local started, before = core.C.pg_clock_seconds(), sink.done
  for first = before, shape[1] - 1, decoder.batch do
    local latents = read(first, math.min(decoder.batch, shape[1] - first))
    local pictures = decoder:decode(latents, to_bytes)
    sink:take(first, pictures)
    local done = first + pictures.shape[1]
    pictures:free()
    latents:free()
    progress:step({ step = done, last = shape[1], stage = "decoding", losses = {},
      rate = (done - before) / (core.C.pg_clock_seconds() - started), batch = 1 }, false)
    if core.C.pg_signals_pending() ~= 0 then error("interrupted; the same command continues from there", 0) end
  end
  decoder:close()
end

function M.run(options)
  local core = require "perigee.core.ffi"
  local path = options[1] or error("perigee decode needs a file of latents: perigee decode " .. M.usage, 0)
  if not options.vae then error("perigee decode needs --vae FILE, an autoencoder's weights", 0) end
  if not options.out then error("perigee decode needs --out, where the pictures go", 0) end
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  core.check(core.C.pg_signals_install())
  require("perigee.core.device").choose(options.device)
  local shape, read = open(path)
  local decoders, files = require "perigee.sampling.decoder", require "perigee.io.files"
  local model = require("perigee.models").autoencoder { weights = options.vae, scale = options.scale,
    shift = options.shift }
  decoders.check(model, { channels = shape[2] })
  local form = { pixels = true, dtype = "uint8", shape = decoders.shape(model, { shape[3], shape[4] }) }
  local told = decoders.settings(options.vae, options)
  told.latents = ("%08x"):format(files.crc32(path, 0, files.size(path)))
  told.scale, told.shift = model.scale, model.shift
  local sink = require("perigee.sampling.sinks").open(options.out, form,
    { count = shape[1], columns = options.columns, settings = told })
  local progress = require("perigee.record.progress").new { clock = core.C.pg_clock_seconds }
  if sink.done > 0 then progress:line("%d pictures are there already", sink.done) end
  if sink.done < shape[1] then decode(options, model, shape, read, sink, progress) end
  require("perigee.sampling.restore").keep_choices()
  progress:line("%d pictures: %s", shape[1], sink:finish())
  return 0
end

return M
