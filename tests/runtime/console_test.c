/* Consoles' sockets: who gets in, stale sockets, clients that flood, stop reading or lie about lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "scratch.h"

static char path[100];
static pg_console *console;

static int open_console(void **state) {
  if (make_folder(state)) return -1;
  snprintf(path, sizeof path, "%s/console.sock", folder);
  return pg_console_listen(&console, path);
}

static int close_console(void **state) {
  pg_console_free(console);
  return remove_folder(state);
}

static pg_console_link *join(int64_t *id) {
  pg_console_link *link;
  const char *frame;
  int64_t bytes;
  assert_int_equal(pg_console_connect(&link, path), PG_OK);
  assert_int_equal(pg_console_poll(console, 1000), 1);
  assert_int_equal(pg_console_next(console, id, &frame, &bytes), PG_CONSOLE_OPENED);
  return link;
}

/* A client below the protocol. */
static int raw_client(int64_t *id) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  const char *frame;
  int64_t bytes;
  assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal(pg_console_poll(console, 1000), 1);
  assert_int_equal(pg_console_next(console, id, &frame, &bytes), PG_CONSOLE_OPENED);
  return fd;
}

static void frames_go_both_ways(void **state) {
  (void)state;
  int64_t id, from, bytes;
  const char *frame;
  pg_console_link *link = join(&id);
  assert_int_equal(pg_console_write(link, "hello", 5), PG_OK);
  assert_int_equal(pg_console_write(link, "", 0), PG_OK);
  assert_int_equal(pg_console_poll(console, 1000), 1);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_FRAME);
  assert_int_equal(from, id);
  assert_int_equal(bytes, 5);
  assert_memory_equal(frame, "hello", 5);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_FRAME);
  assert_int_equal(bytes, 0);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_NOTHING);
  pg_console_send(console, id, "there", 5);
  assert_int_equal(pg_console_read(link, 1000, &frame, &bytes), PG_OK);
  assert_int_equal(bytes, 5);
  pg_console_disconnect(link);
  assert_int_equal(pg_console_poll(console, 1000), 1);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_CLOSED);
}

static void the_socket_is_private_and_one(void **state) {
  (void)state;
  struct stat found;
  assert_int_equal(stat(path, &found), 0);
  assert_int_equal(found.st_mode & 0777, 0600);
  pg_console *second;
  assert_int_equal(pg_console_listen(&second, path), PG_ERROR_IO);
  assert_non_null(strstr(pg_last_error(), "another process"));
}

static void stale_sockets_are_replaced(void **state) {
  (void)state;
  char stale[100];
  snprintf(stale, sizeof stale, "%s/stale.sock", folder);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", stale);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  close(fd);
  pg_console_link *link;
  assert_int_equal(pg_console_connect(&link, stale), PG_ERROR_IO);
  assert_non_null(strstr(pg_last_error(), "stale"));
  pg_console *fresh;
  assert_int_equal(pg_console_listen(&fresh, stale), PG_OK);
  pg_console_free(fresh);
  assert_int_equal(access(stale, F_OK), -1);
  assert_int_equal(pg_console_connect(&link, stale), PG_ERROR_IO);
  assert_non_null(strstr(pg_last_error(), "no run is going"));
}

static void long_paths_work(void **state) {
  (void)state;
  char deep[256], socket_path[300];
  snprintf(deep, sizeof deep, "%s/%0150d", folder, 0);
  snprintf(socket_path, sizeof socket_path, "%s/console.sock", deep);
  assert_int_equal(mkdir(deep, 0700), 0);
  pg_console *other;
  pg_console_link *link;
  assert_int_equal(pg_console_listen(&other, socket_path), PG_OK);
  assert_int_equal(pg_console_connect(&link, socket_path), PG_OK);
  pg_console_disconnect(link);
  pg_console_free(other);
  rmdir(deep);
}

static void liars_are_sent_away(void **state) {
  (void)state;
  int64_t id, from, bytes;
  const char *frame;
  int fd = raw_client(&id);
  assert_int_equal(write(fd, "\xff\xff\xff\xff", 4), 4);
  assert_int_equal(pg_console_poll(console, 1000), 1);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_CLOSED);
  close(fd);
  fd = raw_client(&id);
  assert_int_equal(write(fd, "\x05\0\0\0hel", 7), 7); /* half a frame, then gone */
  close(fd);
  for (int k = 0; k < 3; k++) pg_console_poll(console, 10);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_CLOSED);
}

static void those_who_never_read_are_sent_away(void **state) {
  (void)state;
  static char page[1 << 19];
  int64_t id, from, bytes;
  const char *frame;
  pg_console_link *link = join(&id);
  double start = pg_clock_seconds();
  for (int k = 0; k < 20; k++) pg_console_send(console, id, page, sizeof page);
  assert_true(pg_clock_seconds() - start < 1);
  assert_int_equal(pg_console_next(console, &from, &frame, &bytes), PG_CONSOLE_CLOSED);
  pg_console_disconnect(link);
}

static void a_flood_is_not_taken_in(void **state) {
  (void)state;
  int64_t id, from, bytes, taken = 0;
  const char *frame;
  int fd = raw_client(&id);
  for (int k = 0; k < 100000; k++)
    if (send(fd, "\x01\0\0\0x", 5, MSG_DONTWAIT) < 5) break;
  assert_int_equal(pg_console_poll(console, 0), 1);
  while (pg_console_next(console, &from, &frame, &bytes) == PG_CONSOLE_FRAME) taken++;
  assert_in_range(taken, 1, (1 << 16) / 5 + 1); /* one piece a poll, however much has come */
  close(fd);
}

static void no_more_than_32_get_in(void **state) {
  (void)state;
  pg_console_link *links[33];
  int64_t id, bytes;
  const char *frame;
  for (int k = 0; k < 32; k++) links[k] = join(&id);
  assert_int_equal(pg_console_connect(&links[32], path), PG_OK);
  assert_int_equal(pg_console_poll(console, 100), 0);
  pg_console_read(links[32], 1000, &frame, &bytes);
  assert_int_equal(pg_console_read(links[32], 1000, &frame, &bytes), PG_ERROR_IO);
  for (int k = 0; k < 33; k++) pg_console_disconnect(links[k]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_console, close_console)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(frames_go_both_ways),     TEST(the_socket_is_private_and_one), TEST(stale_sockets_are_replaced),
      TEST(long_paths_work),         TEST(liars_are_sent_away),           TEST(those_who_never_read_are_sent_away),
      TEST(a_flood_is_not_taken_in), TEST(no_more_than_32_get_in),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
