--- A canvas: lines, areas and text by cairo (libcairo.so.2), opened when the first one is made. Coordinates are points
--- from the upper left corner; `scale` pixels make a point.
local ffi = require "ffi"
local tensor = require "perigee.core.tensor"

ffi.cdef [[
typedef struct { double x_bearing, y_bearing, width, height, x_advance, y_advance; } pg_cairo_text_extents;
void *cairo_image_surface_create(int format, int width, int height);
unsigned char *cairo_image_surface_get_data(void *surface);
int cairo_image_surface_get_stride(void *surface);
void cairo_surface_flush(void *surface);
void cairo_surface_destroy(void *surface);
void *cairo_create(void *surface);
void cairo_destroy(void *cr);
int cairo_status(void *cr);
const char *cairo_status_to_string(int status);
void cairo_scale(void *cr, double sx, double sy);
void cairo_save(void *cr);
void cairo_restore(void *cr);
void cairo_set_source_rgba(void *cr, double red, double green, double blue, double alpha);
void cairo_paint(void *cr);
void cairo_move_to(void *cr, double x, double y);
void cairo_line_to(void *cr, double x, double y);
void cairo_close_path(void *cr);
void cairo_arc(void *cr, double x, double y, double radius, double from, double to);
void cairo_new_path(void *cr);
void cairo_rectangle(void *cr, double x, double y, double width, double height);
void cairo_clip(void *cr);
void cairo_fill(void *cr);
void cairo_stroke(void *cr);
void cairo_set_line_width(void *cr, double width);
void cairo_set_line_join(void *cr, int join);
void cairo_set_line_cap(void *cr, int cap);
void cairo_set_dash(void *cr, const double *dashes, int count, double offset);
void cairo_rotate(void *cr, double angle);
void cairo_translate(void *cr, double x, double y);
void cairo_select_font_face(void *cr, const char *family, int slant, int weight);
void cairo_set_font_size(void *cr, double size);
void cairo_text_extents(void *cr, const char *text, pg_cairo_text_extents *extents);
void cairo_show_text(void *cr, const char *text);
void *cairo_font_options_create(void);
void cairo_font_options_destroy(void *options);
void cairo_font_options_set_antialias(void *options, int antialias);
void cairo_font_options_set_hint_style(void *options, int style);
void cairo_font_options_set_hint_metrics(void *options, int metrics);
void cairo_set_font_options(void *cr, void *options);
]]

local RGB24 = 1          -- pixels of 32 bits, 0xXXRRGGBB
local ROUND_JOIN, BUTT, ROUND = 1, 0, 1
local GREY, NO_HINTS, EXACT_METRICS = 2, 1, 1

local M = {}

local cairo
local function library()
  if cairo then return cairo end
  local found, opened = pcall(ffi.load, "libcairo.so.2")
  if not found then
    error("a figure needs cairo (libcairo.so.2): apt-get install --no-install-recommends libcairo2", 0)
  end
  cairo = opened
  return cairo
end

---@class perigee.Canvas
local Canvas = {}
Canvas.__index = Canvas

--- A white canvas of width × height points.
---@return perigee.Canvas
function M.canvas(width, height, scale)
  local c = library()
  local pixels = { math.floor(height * scale + 0.5), math.floor(width * scale + 0.5) }
  local surface = ffi.gc(c.cairo_image_surface_create(RGB24, pixels[2], pixels[1]), c.cairo_surface_destroy)
  local cr = ffi.gc(c.cairo_create(surface), c.cairo_destroy)
  local self = setmetatable({ surface = surface, cr = cr, pixels = pixels, width = width, height = height }, Canvas)
  c.cairo_scale(cr, scale, scale)
  c.cairo_set_line_join(cr, ROUND_JOIN)
  local options = c.cairo_font_options_create() -- the same letters whatever the desktop's settings are
  c.cairo_font_options_set_antialias(options, GREY)
  c.cairo_font_options_set_hint_style(options, NO_HINTS)
  c.cairo_font_options_set_hint_metrics(options, EXACT_METRICS)
  c.cairo_set_font_options(cr, options)
  c.cairo_font_options_destroy(options)
  self:colour "#ffffff"
  c.cairo_paint(cr)
  return self
end

--- Sets the colour of what follows: "#rrggbb", and how opaque (0 to 1).
function Canvas:colour(hex, alpha)
  local rgb = tonumber(hex:match "^#(%x%x%x%x%x%x)$", 16)
  local red, green, blue = math.floor(rgb / 65536), math.floor(rgb / 256) % 256, rgb % 256
  cairo.cairo_set_source_rgba(self.cr, red / 255, green / 255, blue / 255, alpha or 1)
end

--- Draws within a rectangle only, until done.
function Canvas:within(x, y, width, height, body)
  cairo.cairo_save(self.cr)
  cairo.cairo_rectangle(self.cr, x, y, width, height)
  cairo.cairo_clip(self.cr)
  body()
  cairo.cairo_restore(self.cr)
end

local function path(cr, xs, ys)
  cairo.cairo_new_path(cr)
  for k = 1, #xs do cairo.cairo_line_to(cr, xs[k], ys[k]) end
end

---@class perigee.Stroke
---@field colour string
---@field alpha? number
---@field width? number      points
---@field dash? number[]     lengths drawn and left out, in turn
---@field offset? number     where the dashes begin

--- A line through points.
---@param xs number[]
---@param ys number[]
---@param stroke perigee.Stroke
function Canvas:line(xs, ys, stroke)
  local cr, dash = self.cr, stroke.dash or {}
  self:colour(stroke.colour, stroke.alpha)
  cairo.cairo_set_line_width(cr, stroke.width or 1)
  cairo.cairo_set_line_cap(cr, #dash > 0 and BUTT or ROUND)
  cairo.cairo_set_dash(cr, ffi.new("double[?]", math.max(1, #dash), dash), #dash, stroke.offset or 0)
  path(cr, xs, ys)
  cairo.cairo_stroke(cr)
end

--- A filled area with corners at the given points.
function Canvas:area(xs, ys, colour, alpha)
  self:colour(colour, alpha)
  path(self.cr, xs, ys)
  cairo.cairo_close_path(self.cr)
  cairo.cairo_fill(self.cr)
end

function Canvas:disc(x, y, radius, colour, alpha)
  self:colour(colour, alpha)
  cairo.cairo_new_path(self.cr)
  cairo.cairo_arc(self.cr, x, y, radius, 0, 2 * math.pi)
  cairo.cairo_fill(self.cr)
end

local function select_font(cr, how)
  cairo.cairo_select_font_face(cr, "sans-serif", 0, how.bold and 1 or 0)
  cairo.cairo_set_font_size(cr, how.size)
end

local extents = ffi.new "pg_cairo_text_extents"

---@class perigee.Lettering
---@field size number
---@field bold? boolean
---@field colour? string
---@field align? "left"|"centre"|"right"   where (x, y) lies on the baseline
---@field angle? number                    radians, clockwise

--- The width of a text in points.
---@param how perigee.Lettering
function Canvas:text_width(text, how)
  select_font(self.cr, how)
  cairo.cairo_text_extents(self.cr, text, extents)
  return extents.x_advance
end

---@param how perigee.Lettering
function Canvas:text(x, y, text, how)
  local cr, width = self.cr, self:text_width(text, how)
  local shift = how.align == "right" and -width or how.align == "centre" and -width / 2 or 0
  self:colour(how.colour or "#000000")
  cairo.cairo_save(cr)
  cairo.cairo_translate(cr, x, y)
  cairo.cairo_rotate(cr, how.angle or 0)
  cairo.cairo_move_to(cr, shift, 0)
  cairo.cairo_show_text(cr, text)
  cairo.cairo_restore(cr)
end

--- The picture, as uint8 [H,W,3]. The canvas is given back.
---@return perigee.Tensor
function Canvas:picture()
  local status = cairo.cairo_status(self.cr)
  if status ~= 0 then error("cairo cannot draw: " .. ffi.string(cairo.cairo_status_to_string(status)), 0) end
  cairo.cairo_surface_flush(self.surface)
  local height, width = self.pixels[1], self.pixels[2]
  local from = cairo.cairo_image_surface_get_data(self.surface)
  local stride = cairo.cairo_image_surface_get_stride(self.surface)
  local bytes = ffi.new("uint8_t[?]", height * width * 3)
  for y = 0, height - 1 do
    local row, into = ffi.cast("uint32_t *", from + y * stride), bytes + y * width * 3
    for x = 0, width - 1 do
      local pixel = row[x]
      into[3 * x] = bit.band(bit.rshift(pixel, 16), 255)
      into[3 * x + 1] = bit.band(bit.rshift(pixel, 8), 255)
      into[3 * x + 2] = bit.band(pixel, 255)
    end
  end
  cairo.cairo_destroy(ffi.gc(self.cr, nil))
  cairo.cairo_surface_destroy(ffi.gc(self.surface, nil))
  return tensor.tensor(bytes, { height, width, 3 }, "uint8")
end

return M
