--- Runs by their labels: those that share one are seeds of the same thing.
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

return M
