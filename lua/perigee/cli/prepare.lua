--- perigee prepare: pictures of any size to what recipes read.
local M = {
  summary = "prepare pictures and latents for training",
  usage = "SOURCE DEST [options]",
  description = "Crops the pictures of a folder or a zip or tar archive (JPEG, PNG, WebP; labels by folder, or by a\n"
    .. "dataset.json) at their centre as ADM does and writes them to DEST/images as PNG, in REPA's layout. With --vae\n"
    .. "their latents' mean and deviation go to DEST/vae-sd: pg.data.imagenet_latents { dir = DEST } reads both.\n"
    .. "What was interrupted, however it ended, goes on by the same command.\n\n"
    .. "  perigee prepare --check DEST       holds all files against their digests\n"
    .. "  perigee prepare coco SOURCE DEST --annotations FILE    MS-COCO in U-ViT's layout",
}

function M.options()
  return {
    { name = "size", type = "integer", default = 256, min = 8, max = 4096, help = "side of the pictures" },
    { name = "vae", type = "string", value = "FILE", help = "an autoencoder's weights: latents too" },
    { name = "flips", default = false, help = "latents of the mirror images too" },
    { name = "skip", default = false, help = "leave out pictures that can't be read, and list them" },
    { name = "workers", type = "integer", min = 1, help = "threads that read pictures (default: the processors)" },
    { name = "batch", type = "integer", default = 4, min = 1, help = "pictures that are encoded at once" },
    { name = "device", type = "string", default = "cpu", help = "that encodes: cpu or cuda" },
    { name = "check", default = false, help = "check what is there, and change nothing" },
    { name = "annotations", type = "string", value = "FILE", help = "of coco: captions_train2014.json or another" },
    { name = "split", type = "string", default = "train", help = "of coco: the folder in DEST, train or val" },
    { name = "text", type = "string", value = "DIR", help = "of coco: a folder with the captions' features" },
  }
end

--- A word that is a mistake in this place.
local function expect_words(options, count, text)
  if #options ~= count then error("perigee prepare " .. text, 0) end
end

local function check_folder(options, progress)
  expect_words(options, 1, "--check needs the folder alone: perigee prepare --check DEST")
  local found = require("perigee.prepare.check").run(options[1], progress)
  return #found == 0
end

function M.run(options)
  local core = require "perigee.core.ffi"
  core.check(core.C.pg_signals_install())
  local progress = require("perigee.record.progress").new { clock = core.C.pg_clock_seconds }
  if options.check then return check_folder(options, progress) end
  require("perigee.core.device").choose(options.device)
  if options.flips and not options.vae then error("--flips are of latents; give --vae FILE", 0) end
  local common = { size = options.size, vae = options.vae, flips = options.flips, skip = options.skip,
    workers = options.workers or core.C.pg_threads(), batch = options.batch, device = options.device,
    progress = progress }
  if options[1] == "coco" then
    expect_words(options, 3, "coco needs pictures and a folder: perigee prepare coco SOURCE DEST --annotations FILE")
    common.source, common.dest = options[2], options[3]
    common.annotations, common.split, common.text = options.annotations, options.split, options.text
    require("perigee.prepare.coco").run(common)
  else
    expect_words(options, 2, "needs pictures and a folder: perigee prepare SOURCE DEST")
    common.source, common.dest = options[1], options[2]
    require("perigee.prepare").run(common)
  end
  progress:close()
end

return M
