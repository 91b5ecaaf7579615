-- README.md and docs/*.md: their Lua runs, their commands parse, their links and paths lead somewhere.
--
-- The Lua blocks of a page run in order in one environment, which has at hand what the REPL has: pg, nn, ops, loss,
-- stop, signal. A recipe that a block returns is checked as before a run. Fields of a recipe that a block sets
-- (`finish = ...`, `data = ...`, `local student = ...`) are tried in a small recipe. A block whose first line is a
-- comment with a file's name is that file for the page's commands. `<!-- not run: REASON -->` above a block leaves it
-- out.
local chunk_of = loadstring
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local lfs = require "lfs"
local parameters = require "perigee.stage.parameters"
local pg = require "perigee"
local preview = require "perigee.sampling.preview"
local tiny = require "tests.lua.tiny"

-- ---- pages ------------------------------------------------------------------------------------------------------

local function pages()
  local list = { "README.md" }
  for _, name in ipairs(files.list(core.home .. "/docs")) do
    if name:match "%.md$" then list[#list + 1] = "docs/" .. name end
  end
  return list
end

--- A page's blocks in order: { kind, lines, first (the line where it begins), skipped (the reason) }. `kind` is what a
--- fence says, "lua" for instance, or "indented".
local function blocks_of(text)
  local list, block, number, reason, before = {}, nil, 0, nil, ""
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local fence = line:match "^```(.*)$"
    if block and block.kind ~= "indented" then
      if fence then block = nil else table.insert(block.lines, line) end
    elseif fence then
      block = { kind = fence, lines = {}, first = number + 1, skipped = reason }
      list[#list + 1] = block
    elseif line:match "^    " and (block or before == "") then
      if not block then
        block = { kind = "indented", lines = {}, first = number, skipped = reason }
        list[#list + 1] = block
      end
      table.insert(block.lines, line:sub(5))
    elseif line ~= "" then block = nil
    end
    if not block then reason = line:match "^<!%-%- not run: (.+) %-%->$" or (line == "" and reason or nil) end
    before = line
  end
  return list
end

--- Code spans of the prose around the blocks.
local function spans_of(text)
  local list = {}
  text = text:gsub("```.-```", ""):gsub("\n    [^\n]*", "")
  for span in text:gmatch "`([^`]+)`" do list[#list + 1] = (span:gsub("%s+", " ")) end
  return list
end

-- ---- Lua --------------------------------------------------------------------------------------------------------

local function environment()
  local at_hand = { pg = pg, nn = pg.nn, ops = pg.ops, loss = pg.loss, stop = pg.stop, signal = pg.signal,
    print = function() end }
  return setmetatable({}, { __index = function(_, name)
    local value = at_hand[name]
    if value == nil then value = rawget(_G, name) end
    if value == nil then error(("undefined variable '%s'"):format(name), 2) end
    return value
  end })
end

--- Runs a block. Its locals are the page's: `local` at a line's beginning is dropped.
local function run_block(page, block, env)
  local text = ("\n"):rep(block.first - 1) .. table.concat(block.lines, "\n"):gsub("},$", "}") -- a part of a table
  text = ("\n" .. text):gsub("\nlocal ([^\n]*)", function(rest)
    return "\n" .. (rest:match "^function" or rest:match "^[%w_, ]+=" and "" or "local ") .. rest:gsub("^function", "")
  end):sub(2)
  local chunk = assert(chunk_of(text, "@" .. page))
  return setfenv(chunk, env)()
end

local FIELDS = { "student", "teacher", "data", "optim", "stages", "sample", "every" }

--- A small recipe with the fields that a block set.
local function small_recipe(env)
  local loss = pg.loss
  local given = {
    name = "page",
    student = pg.models.sit { depth = 5, width = 16, heads = 2, patch = 8, size = 32, channels = 3, classes = 8 },
    teacher = pg.models.vit { depth = 1, width = 8, heads = 1, patch = 8, image = 32 },
    data = pg.data.shapes { batch = 2, count = 16 },
    stages = { {
      name = "align", finish = rawget(env, "finish") or pg.stop.after(1), signals = rawget(env, "signals"),
      losses = { { 1, loss.flow_matching() }, { 0.5, loss.feature_alignment { block = 1, hidden = 8 } } },
    } },
  }
  for _, field in ipairs(FIELDS) do given[field] = rawget(env, field) or given[field] end
  return pg.recipe(given)
end

--- What is checked before a recipe's first step; by tracing where it is small.
local function check_recipe(recipe)
  recipe:validate()
  if recipe.student:parameter_count() < 1e7 then
    parameters.check(recipe)
    preview.check(recipe)
  end
end

local function check_results(env, result)
  if require("perigee.recipe").is_recipe(result) then check_recipe(result) end
  local any = rawget(env, "finish") or rawget(env, "signals")
  for _, field in ipairs(FIELDS) do any = any or rawget(env, field) end
  if any then check_recipe(small_recipe(env)) end
  for _, field in ipairs { "finish", "signals", unpack(FIELDS) } do env[field] = nil end
end

-- ---- commands ---------------------------------------------------------------------------------------------------

--- A shell line's words, without its quotes and its comment.
local function words_of(line)
  local words, word, quote = {}, nil, nil
  for c in (line .. " "):gmatch "." do
    if quote then
      if c == quote then quote = nil else word = word .. c end
    elseif c == "'" or c == '"' then quote, word = c, word or ""
    elseif c:match "%s" then
      words[#words + 1], word = word, nil
    elseif c == "#" and not word then break
    else word = (word or "") .. c
    end
  end
  return words
end

--- A block's command lines: continued lines joined, variables put in, `$ ` and environment in front taken away.
local function commands_of(lines)
  local list, variables = {}, {}
  local text = ("\n" .. table.concat(lines, "\n") .. "\n"):gsub("\\\n%s*", "")
  for line in text:gmatch "[^\n]+" do
    line = line:gsub("^%$ ", "./"):gsub("%$(%u+)", variables)
    local name, value = line:match '^(%u+)="(.*)"'
    if name then variables[name] = value:gsub("%$(%u+)", variables)
    else
      line = line:gsub("^[%u_]+=%S+ ", "")
      if line:match "^%./perigee " or line:match "^tests/" then list[#list + 1] = line end
    end
  end
  return list
end

local cli = require "perigee.cli"

--- Parses a command as `perigee` does, its recipe's options too; nothing runs. `own`: the page's own files, by name.
local function check_command(line, own)
  local words = words_of(line)
  if words[1] ~= "./perigee" then
    assert(lfs.attributes(core.home .. "/" .. words[1]), words[1] .. " is not there")
    return
  end
  local name = words[2]
  if name == "--help" or name == "--version" or name == "COMMAND" then return end
  local verb = require("perigee.cli." .. name)
  local arguments = {}
  for k = 3, #words do
    local word = words[k]
    if own[word] then word = own[word]
    elseif word:match "^%l[%w_/]*%.lua$" or word:match "^tests/" or word:match "^recipes/" then
      assert(lfs.attributes(core.home .. "/" .. word), word .. " is not there")
    end
    if word ~= "..." then arguments[#arguments + 1] = word end
  end
  cli.read(name, verb, arguments)
end

--- Commands named in the prose. A verb that needs a recipe may stand there without one.
local function check_span(span, own)
  local command = span:match "perigee (%l.*)$"
  if not command or span:match "^[^%s]*=" and not span:match "%./perigee" then return end
  local verb = require("perigee.cli." .. command:match "^%l+")
  local words = words_of(command)
  if verb.recipe and not (words[2] or ""):match "^[%l.]" then
    command = command:gsub("^%l+", "%0 recipes/quickstart.lua")
  end
  check_command("./perigee " .. command:gsub(" %[?RECIPE%]?$", ""), own)
end

-- ---- links ------------------------------------------------------------------------------------------------------

--- The anchors of a page's headings, as GitHub makes them.
local function anchors_of(path)
  local found = {}
  for heading in ("\n" .. files.read(path)):gmatch "\n#+ ([^\n]+)" do
    found[heading:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")] = true
  end
  return found
end

local function check_link(page, link)
  local path, anchor = link:match "^([^#]*)#?(.*)$"
  local file = ("%s/%s"):format(core.home, path == "" and page or page:match "^(.*/)" and "docs/" .. path or path)
  assert(lfs.attributes(file), ("%s: the link %s leads nowhere"):format(page, link))
  if anchor ~= "" then
    assert(anchors_of(file)[anchor], ("%s: the page of %s has no such heading"):format(page, link))
  end
end

local function is_there(path, mode)
  local found = lfs.attributes(core.home .. "/" .. path, "mode")
  return found ~= nil and (mode or found) == found
end

--- A path of this tree, or, as `core/op.lua`, of lua/perigee/.
local function check_path(page, path)
  local folder = path:match "^[^/]+"
  if folder == "build" then return end -- made when it is needed
  if is_there(folder, "directory") or is_there("lua/perigee/" .. folder, "directory") then
    assert(is_there(path) or is_there("lua/perigee/" .. path), ("%s: there is no %s"):format(page, path))
  end
end

-- ---- the tests --------------------------------------------------------------------------------------------------

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

--- The files that a page's blocks name in their first line.
local function own_files(blocks)
  local own = {}
  for _, block in ipairs(blocks) do
    local name = block.kind == "lua" and block.lines[1]:match "^%-+ ([%w_]+%.lua)"
    if name then
      own[name] = in_folder(name)
      files.write(own[name], table.concat(block.lines, "\n") .. "\n")
    end
  end
  return own
end

describe("a page of docs:", function()
  --- The log that docs/running.md shows, for scripts that read one.
  setup(function()
    local lines = {}
    for _, block in ipairs(blocks_of(files.read(core.home .. "/docs/running.md"))) do
      for _, line in ipairs(block.lines) do
        if line:match '^{"' then lines[#lines + 1] = line end
      end
    end
    for _, line in ipairs(lines) do json.decode(line) end
    assert.is_true(#lines > 8)
    files.make_folder(in_folder "run")
    files.write(in_folder "run/events.jsonl", table.concat(lines, "\n") .. "\n")
  end)

  for _, page in ipairs(pages()) do
    describe(page, function()
      local text = files.read(core.home .. "/" .. page)
      local blocks = blocks_of(text)

      it("has Lua that runs", function()
        local env, folder = environment(), lfs.currentdir()
        env.arg = { in_folder "run" }
        finally(function() lfs.chdir(folder) end)
        lfs.chdir(in_folder()) -- for the files that they write
        for _, block in ipairs(blocks) do
          if block.kind == "lua" and not block.skipped then
            pg.tidy(function() check_results(env, run_block(page, block, env)) end)
          end
        end
      end)

      it("has commands that parse", function()
        local own = own_files(blocks)
        for _, block in ipairs(blocks) do
          if block.kind ~= "lua" then
            for _, command in ipairs(commands_of(block.lines)) do
              local fine, message = pcall(check_command, command, own)
              assert(fine, ("%s:%d: %s: %s"):format(page, block.first, command, message))
            end
          end
        end
        for _, span in ipairs(spans_of(text)) do
          local fine, message = pcall(check_span, span, own)
          assert(fine, ("%s: `%s`: %s"):format(page, span, message))
        end
      end)

      it("has links and paths that lead somewhere", function()
        for link in text:gmatch "%]%(([^)%s]+)%)" do
          if not link:match "^https?:" then check_link(page, link) end
        end
        for _, span in ipairs(spans_of(text)) do
          local path = span:match "^%l[%w_]*/[%w_%-%./]+$"
          if path and not path:match "%u%u" then check_path(page, path) end
        end
      end)
    end)
  end

  it("pytorch.md names SiT's weights as they are loaded", function()
    local text, weights = files.read(core.home .. "/docs/pytorch.md"), require "perigee.io.weights"
    for ours, theirs in pairs {
      ["patch_embedding.weight"] = "x_embedder.proj.weight", ["time_embedding.output.bias"] = "t_embedder.mlp.2.bias",
      ["label_embedding.table"] = "y_embedder.embedding_table.weight",
      ["blocks.1.attention.qkv.weight"] = "blocks.0.attn.qkv.weight",
      ["blocks.1.mlp.hidden.weight"] = "blocks.0.mlp.fc1.weight",
      ["blocks.1.modulation.bias"] = "blocks.0.adaLN_modulation.1.bias",
      ["final.modulation.weight"] = "final_layer.adaLN_modulation.1.weight",
      ["final.projection.weight"] = "final_layer.linear.weight",
    } do
      local names = pg.models.sit { depth = 1, width = 16, heads = 1 }.public_names
      assert.equal(theirs, weights.public_name(names, ours))
      local layer = theirs:gsub("%.%l+$", "")
      assert.is_truthy(text:find("`" .. theirs .. "`", 1, true) or text:find("`" .. layer .. "`", 1, true), theirs)
    end
  end)

  it("repl.md shows what the REPL answers", function()
    for _, block in ipairs(blocks_of(files.read(core.home .. "/docs/repl.md"))) do
      if block.lines[1] == "$ perigee repl" then
        local typed, expected = {}, {}
        for k = 2, #block.lines do
          local input = block.lines[k]:match "^perigee> (.*)$" or block.lines[k]:match "^%s+> (.*)$"
          table.insert(input and typed or expected, input or block.lines[k])
        end
        assert.is_true(#typed > 3)
        files.write(in_folder "typed", table.concat(typed, "\n") .. "\n")
        local _, output = tiny.perigee("repl < typed", "cd " .. tiny.quote(in_folder()) .. " &&")
        local function answers(text) return (text:gsub("^Perigee [^\n]*\n", "")) end
        assert.equal(answers(table.concat(expected, "\n") .. "\n"), answers(output))
      end
    end
  end)
end)
