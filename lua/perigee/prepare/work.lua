--- The common part of preparing: samples in order, a batch at a time, their files placed, and lines appended to the
--- manifest once the files are on the disk. A kill at any point loses what is not yet listed, some seconds of work.
local core = require "perigee.core.ffi"
local duration = require("perigee.record.progress").duration
local files = require "perigee.io.files"
local tensor = require "perigee.core.tensor"

local C = core.C
local M = {}

--- Between two appends to a manifest lie so many seconds or samples, whichever comes first.
M.seconds, M.samples = 10, 1000

--- Writes one file of a set: body(writer). Returns its CRC-32, as eight digits, and its bytes.
---@param path string
---@param body fun(writer: perigee.Writer)
---@return string crc
---@return integer bytes
function M.place(path, body)
  local writer = files.writer(path)
  local fine, result = pcall(function()
    body(writer)
    return ("%08x"):format(writer:crc32(0, writer:bytes()))
  end)
  if not fine then
    writer:abort()
    error(result, 0)
  end
  local bytes = writer:bytes()
  writer:place()
  return result, bytes
end

--- Makes the folder of a file if that is not the one made last; removes what a killed process left in it.
function M.folders()
  local last
  return function(path)
    local folder = files.split(path)
    if folder == last then return end
    last = folder
    files.make_folder(folder)
    files.sweep(folder)
  end
end

--- Refuses to begin where the disk is too small for the rest.
local function expect_room(folder, bytes)
  local free = files.free_space(folder)
  if bytes > free then
    core.fail("%s: this needs about %.1f GB more, and its disk has %.1f GB left", folder, bytes / 1e9, free / 1e9)
  end
end

---@class perigee.PrepareWork
---@field folder string                 for which there must be room
---@field manifest perigee.Manifest
---@field what string                   "pictures"
---@field bytes integer                 about so many a sample
---@field batch fun(first: integer): perigee.ManifestLine[]  makes the files of the samples from number `first`, the
---  manifest's lines of a batch
---@field progress perigee.Progress

--- Does what the manifest does not list.
---@param work perigee.PrepareWork
function M.run(work)
  local manifest, count = work.manifest, work.manifest.about.count
  local begun, before = C.pg_clock_seconds(), #manifest.lines
  expect_room(work.folder, (count - before) * work.bytes)
  local waiting, since = {}, begun
  local function append()
    if #waiting == 0 then return end
    files.sync(work.folder)
    manifest:append(waiting)
    waiting, since = {}, C.pg_clock_seconds()
  end
  while #manifest.lines + #waiting < count do
    tensor.tidy(function()
      for _, line in ipairs(work.batch(#manifest.lines + #waiting)) do waiting[#waiting + 1] = line end
    end)
    local done, now = #manifest.lines + #waiting, C.pg_clock_seconds()
    local rate = (done - before) / math.max(now - begun, 1e-9)
    work.progress:follow(("%s %d/%d  %s/s  %s left"):format(work.what, done, count,
      (rate < 10 and "%.2f" or "%.0f"):format(rate), duration((count - done) / rate)), done / count)
    local stopped = C.pg_signals_pending() ~= 0
    if #waiting >= M.samples or now - since >= M.seconds or done == count or stopped then append() end
    if stopped and done < count then error("interrupted; the same command continues from there", 0) end
  end
end

return M
