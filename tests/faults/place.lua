--- A folder with what recipe.lua here trains: pictures of two classes and a teacher's weights.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pg = require "perigee"
local png = require "perigee.io.png"

--- Makes it, with `count` pictures.
return function(folder, count)
  for k = 1, count do
    files.make_folder(("%s/data/%d"):format(folder, k % 2))
    png.save(("%s/data/%d/%d.png"):format(folder, k % 2, k), pg.full({ 16, 16, 3 }, 20 * k % 256, "uint8"))
  end
  local weights = files.read(door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors")
  files.write(folder .. "/teacher.safetensors", weights)
end
