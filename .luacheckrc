std = "luajit"
max_line_length = 120
unused_args = false
files["tests/**/*_spec.lua"] = { std = "luajit+busted" }
files["tests/ops/*.lua"] = { std = "luajit+busted" }
exclude_files = { "build*/", "runs/", ".cache/" }
