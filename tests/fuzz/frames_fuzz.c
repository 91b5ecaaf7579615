/* Frames that come over a console's socket (runtime/console.c), in pieces: what is handed out is what a plain reading of
 * the whole stream gives, up to a frame that is too long. */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fuzz.h"

enum { LONGEST = 1 << 20 };

static pg_console *console;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void close_console(void) { pg_console_free(console); }

static void listen_once(void) {
  if (console) return;
  snprintf(address.sun_path, sizeof address.sun_path, "/tmp/perigee-fuzz-%d.sock", (int)getpid());
  REQUIRE(!pg_console_listen(&console, address.sun_path));
  atexit(close_console);
}

/* The length of the stream's next frame; -1: it is not whole, -2: it is too long. */
static int64_t next_frame(const input *rest) {
  if (rest->left < 4) return -1;
  uint32_t n = rest->at[0] | rest->at[1] << 8 | rest->at[2] << 16 | (uint32_t)rest->at[3] << 24;
  if (n > LONGEST) return -2;
  return rest->left - 4 < n ? -1 : (int64_t)n;
}

/* Takes in all that has come; `expected` moves on with each frame. True once the client is sent away. */
static bool serve(input *expected) {
  int64_t client, bytes;
  const char *frame;
  while (pg_console_poll(console, 0))
    for (int event; (event = pg_console_next(console, &client, &frame, &bytes)) != PG_CONSOLE_NOTHING;) {
      if (event == PG_CONSOLE_CLOSED) return true;
      if (event != PG_CONSOLE_FRAME) continue;
      REQUIRE(next_frame(expected) == bytes && !memcmp(frame, expected->at + 4, (size_t)bytes));
      expected->at += 4 + bytes;
      expected->left -= 4 + (size_t)bytes;
      if (bytes % 16 == 3) pg_console_send(console, client, expected->at - bytes, bytes);
    }
  return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  listen_once();
  input in = {data, size};
  size_t piece = 1 + take_byte(&in) * 3u;
  input expected = in;
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address));
  bool closed = false;
  while (in.left && !closed) {
    size_t now = in.left < piece ? in.left : piece;
    if (send(fd, in.at, now, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
    in.at += now;
    in.left -= now;
    closed = serve(&expected);
  }
  if (!closed) {
    closed = serve(&expected);
    REQUIRE(closed || next_frame(&expected) == -1); /* nothing that is whole is held back */
  }
  REQUIRE(!closed || next_frame(&expected) == -2);  /* and nobody is sent away for less */
  close(fd);
  while (!closed) closed = serve(&expected);
  return 0;
}
