--- Runs by their labels: those that share one are seeds of the same thing.
local files = require "perigee.io.files"
local printable = require "perigee.base.printable"

local M = {}

---@class perigee.LabelledRuns: perigee.Record[]
---@field label string

--- The runs of each label, in the order in which labels come first.
---@param records perigee.Record[]
---@return perigee.LabelledRuns[]
function M.group(records)
  local groups, by_label = {}, {}
  for _, record in ipairs(records) do
    local group = by_label[record.label]
    if not group then
      group = { label = record.label }
      groups[#groups + 1], by_label[record.label] = group, group
    end
    group[#group + 1] = record
  end
  return groups
end

--- Reads runs that a command line names as RUN or LABEL=RUN. Without a label a run is called by its folder's name, or
--- by its path where another one has that name.
---@param words string[]
---@param read fun(path: string, label?: string, tell: fun(message: string)): table  with `label` and `path`
---@return table[]
function M.read(words, read)
  local records, count = {}, {}
  for k, word in ipairs(words) do
    local label, path = word:match "^([^=]+)=(.+)$"
    if not label or files.exists(word) then label, path = nil, word end
    records[k] = read(path, label, function(message)
      io.stderr:write("note: ", printable.text(message), "\n")
    end)
    count[records[k].label] = (count[records[k].label] or 0) + (label and 0 or 1)
  end
  for _, one in ipairs(records) do
    if count[one.label] > 1 then one.label = one.path end
  end
  return records
end

return M
