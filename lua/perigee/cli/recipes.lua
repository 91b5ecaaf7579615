--- perigee recipes: what can be trained, as the recipes' own first lines say.
local M = {
  summary = "list recipes with a line each and their published results",
  usage = "[FOLDER]",
  description = "Prints, for each recipe of a folder (default: those that come with Perigee), the first sentence of\n"
    .. "its head comment and its line that begins with `Published:`.",
}

--- The head comment's text: its first paragraph in one line, without a `Published:` line; and that.
local function head_of(path)
  local words, published, first = {}, nil, true
  for line in (require("perigee.io.files").read(path) .. "\n"):gmatch "(.-)\n" do
    local text = line:match "^%-%-%-? ?(.*)$"
    if not text then break end
    if text == "" then first = false
    elseif text:match "^Published" or published and published.open then
      published = published or { open = true }
      published[#published + 1] = text
    elseif first then words[#words + 1] = text end
  end
  return table.concat(words, " "), published and table.concat(published, " ")
end

function M.run(options)
  local files, printable = require "perigee.io.files", require "perigee.base.printable"
  local folder = options[1] or require("perigee.core.ffi").home .. "/recipes"
  if files.kind(folder) ~= "directory" then error("no folder " .. folder, 0) end
  local shown, count = options[1] or "recipes", 0
  for _, name in ipairs(files.list(folder)) do
    if name:match "%.lua$" then
      count = count + 1
      local text, published = head_of(folder .. "/" .. name)
      printable.print(("%s/%s\n  %s"):format(shown, name, text == "" and "(no head comment)" or text))
      if published then printable.print("  " .. published) end
    end
  end
  if count == 0 then error(folder .. " holds no recipe (*.lua)", 0) end
  return 0
end

return M
