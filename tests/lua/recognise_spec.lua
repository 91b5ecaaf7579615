-- A file of another kind than was expected is recognised, and the message says what to do with it.
local core = require "perigee.core.ffi"
local create = require "perigee.core.create"
local fails = require("tests.lua.expect").fails
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local npy = require "perigee.io.npy"
local png = require "perigee.io.png"
local recognise = require "perigee.io.recognise"
local safetensors = require "perigee.io.safetensors"
local weights = require "perigee.io.weights"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function put(name, text)
  local file = assert(io.open(in_folder(name), "wb"))
  file:write(text)
  file:close()
  return in_folder(name)
end

local function zip(name) return "PK\3\4" .. ("\0"):rep(22) .. string.char(#name, 0, 0, 0) .. name end

-- how files begin, and a word of what is said; true: weights may be of this kind
local KINDS = {
  { zip "archive/data.pkl", "PyTorch's format", true },
  { zip "arr_0.npy", "an .npz archive", true },
  { zip "readme.txt", "a zip archive; unpack it", true },
  { "\128\2}q\0", "a Python pickle" },
  { "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 346\n", "git lfs pull" },
  { "\n<!DOCTYPE html>\n<html>", "an HTML page" },
  { "<html><body>404</body></html>", "an HTML page" },
  { '{"metadata":{"total_size":1},"weight_map":{}}', "the index of a model in several files", true },
  { '{"error":"not found"}', "a JSON text" },
  { "\31\139\8\0", "gunzip" },
  { "\253" .. "7zXZ\0", "unxz" },
  { ("x"):rep(257) .. "ustar\0", "tar -xf" },
  { "\255\216\255\224", "a JPEG picture", picture = true },
  { "\137HDF\r\n\26\n", "an HDF5 file" },
  { ("\0"):rep(100), "zeros" },
  { "", "empty" },
}

describe("a file of another kind", function()
  it("is recognised wherever a file is read", function()
    for k, kind in ipairs(KINDS) do
      local path = put("file" .. k, kind[1])
      for _, read in ipairs { safetensors.open, npy.header, not kind.picture and png.load or nil } do
        fails(function() read(path) end, path, kind[2])
      end
      if not kind[3] then fails(function() weights.open(path) end, path, kind[2]) end
      if kind[1]:sub(1, 1) ~= "{" then fails(function() json.read(path) end, path, kind[2]) end
    end
  end)

  it("is recognised among our own kinds too", function()
    local t = create.full({ 4, 4, 3 }, 0, { dtype = "uint8" })
    safetensors.save(in_folder "a", { t = t })
    npy.save(in_folder "b", t)
    png.save(in_folder "c", t)
    local names = { a = "a safetensors file", b = "a .npy array", c = "a PNG picture" }
    for path, what in pairs(names) do
      for own, read in pairs { a = safetensors.open, b = npy.header, c = png.load } do
        if own == path then read(in_folder(path)) else fails(function() read(in_folder(path)) end, "it is " .. what) end
      end
      fails(function() json.read(in_folder(path)) end, "not a JSON file: it is " .. what)
    end
  end)

  it("is not made up: what is damaged is not called by its own name, what is unknown not at all", function()
    safetensors.save(in_folder "a", { t = create.full({ 4 }, 0, { dtype = "float32" }) })
    local text = files.read(in_folder "a")
    fails(function() safetensors.open(put("cut", text:sub(1, 30))) end, "the header is said to have")
    assert.is_nil(recognise.sentence(put("text", "Call me Ishmael.")))
    fails(function() safetensors.open(put("text", "Call me Ishmael.")) end, "the header is said to have")
  end)
end)
