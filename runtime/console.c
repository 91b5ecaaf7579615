/* Consoles: a Unix socket in a run's folder, served between steps without ever waiting for a client, and the client's
 * side of it. Messages are frames: a length (32 bits, little-endian) and so many bytes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "internal.h"

enum { MAX_CLIENTS = 32, MAX_FRAME = 1 << 20, MAX_QUEUED = 4 << 20, READ_AT_ONCE = 1 << 16, HEADER = 4 };

/* A growing array of bytes; `start` bytes at its front are used up. */
typedef struct {
  char *data;
  size_t start, length, room;
} buffer;

static size_t buffer_held(const buffer *b) { return b->length - b->start; }

static int buffer_reserve(buffer *b, size_t more) {
  if (b->start) {
    memmove(b->data, b->data + b->start, buffer_held(b));
    b->length -= b->start;
    b->start = 0;
  }
  if (b->length + more <= b->room) return 1;
  size_t room = (b->length + more) * 2;
  char *grown = realloc(b->data, room);
  if (!grown) return 0;
  b->data = grown;
  b->room = room;
  return 1;
}

static void buffer_append(buffer *b, const void *bytes, size_t n) {
  memcpy(b->data + b->length, bytes, n);
  b->length += n;
}

static void buffer_free(buffer *b) {
  free(b->data);
  memset(b, 0, sizeof *b);
}

/* One end of a connection. `id` is 0 where there is none. */
typedef struct {
  int fd;
  int64_t id;
  int announced; /* PG_CONSOLE_OPENED was handed out */
  int closed;    /* the other side is gone, or was sent away */
  buffer in, out;
  size_t taken; /* bytes of `in` that the last frame handed out covers */
} peer;

struct pg_console {
  int listener;
  char *path;
  dev_t device;
  ino_t inode;
  int64_t next_id;
  int turn; /* clients are asked in turn, from this one on */
  peer clients[MAX_CLIENTS];
};

struct pg_console_link {
  peer server;
};

/* ---- addresses ------------------------------------------------------------------------------------------------ */

/* The address of a path of any length: through an open descriptor of its folder, as sun_path holds 107 bytes. */
static pg_status make_address(const char *path, struct sockaddr_un *address, int *folder) {
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  char *parent = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
  if (!parent) return pg_error(PG_ERROR_MEMORY, "console: out of memory");
  *folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  free(parent);
  if (*folder < 0) return pg_error(PG_ERROR_IO, "%s: %s", path, strerror(errno));
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  int n = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *folder, name);
  if (n < (int)sizeof address->sun_path) return PG_OK;
  close(*folder);
  return pg_error(PG_ERROR_ARGUMENT, "%s: the file's name is too long for a socket", path);
}

static int same_user(int fd) {
  struct ucred who;
  socklen_t size = sizeof who;
  return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) && who.uid == geteuid();
}

/* ---- a peer's bytes ------------------------------------------------------------------------------------------- */

static void peer_end(peer *p) {
  if (p->fd >= 0) close(p->fd);
  p->fd = -1;
  p->closed = 1;
}

static void peer_free(peer *p) {
  peer_end(p);
  buffer_free(&p->in);
  buffer_free(&p->out);
  memset(p, 0, sizeof *p);
  p->fd = -1;
}

/* Length of the frame that `in` begins with, -1 where it is not whole yet, -2 where it would be too long. */
static int64_t frame_length(const peer *p) {
  if (buffer_held(&p->in) < HEADER) return -1;
  const unsigned char *h = (const unsigned char *)p->in.data + p->in.start;
  uint32_t n = h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
  if (n > MAX_FRAME) return -2;
  return buffer_held(&p->in) < HEADER + n ? -1 : (int64_t)n;
}

/* Reads what is there, at most READ_AT_ONCE bytes; nothing while a whole frame waits. */
static void peer_read(peer *p) {
  if (p->closed || frame_length(p) >= 0) return;
  if (!buffer_reserve(&p->in, READ_AT_ONCE)) {
    peer_end(p);
    return;
  }
  ssize_t n = recv(p->fd, p->in.data + p->in.length, READ_AT_ONCE, MSG_DONTWAIT);
  if (n > 0) p->in.length += (size_t)n;
  else if (n == 0 || (errno != EAGAIN && errno != EINTR)) peer_end(p);
  if (frame_length(p) == -2) peer_end(p);
}

static void peer_write(peer *p) {
  while (!p->closed && buffer_held(&p->out)) {
    ssize_t n = send(p->fd, p->out.data + p->out.start, buffer_held(&p->out), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) p->out.start += (size_t)n;
    else if (n < 0 && errno == EINTR) continue;
    else {
      if (n < 0 && errno != EAGAIN) peer_end(p);
      return;
    }
  }
}

static int peer_queue(peer *p, const void *bytes, int64_t n) {
  unsigned char h[HEADER] = {(unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16),
                             (unsigned char)(n >> 24)};
  if (!buffer_reserve(&p->out, HEADER + (size_t)n)) return 0;
  buffer_append(&p->out, h, HEADER);
  if (n) buffer_append(&p->out, bytes, (size_t)n);
  return 1;
}

/* The next whole frame, valid until the next call for this peer. */
static int peer_frame(peer *p, const char **frame, int64_t *bytes) {
  p->in.start += p->taken;
  p->taken = 0;
  int64_t n = frame_length(p);
  if (n == -2) peer_end(p); /* it stood behind a frame that was handed out */
  if (n < 0) return 0;
  *frame = p->in.data + p->in.start + HEADER;
  *bytes = n;
  p->taken = HEADER + (size_t)n;
  return 1;
}

/* ---- the server ----------------------------------------------------------------------------------------------- */

/* Clears the way for a new socket: one of a dead run is removed, one that is served is refused. */
static pg_status clear_stale(const char *path, const struct sockaddr_un *address) {
  struct stat found;
  if (lstat(path, &found)) return errno == ENOENT ? PG_OK : pg_error(PG_ERROR_IO, "%s: %s", path, strerror(errno));
  if (!S_ISSOCK(found.st_mode)) return pg_error(PG_ERROR_IO, "%s: not a socket, and where the console's socket belongs", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return pg_error(PG_ERROR_IO, "%s: %s", path, strerror(errno));
  int failed = connect(fd, (const struct sockaddr *)address, sizeof *address), reason = errno;
  close(fd);
  if (failed && reason == ECONNREFUSED)
    return unlink(path) ? pg_error(PG_ERROR_IO, "%s: %s", path, strerror(errno)) : PG_OK;
  if (failed && reason != EAGAIN) return pg_error(PG_ERROR_IO, "%s: %s", path, strerror(reason));
  return pg_error(PG_ERROR_IO, "%s: another process serves it; is the run going already?", path);
}

static pg_status open_listener(pg_console *c, const char *path) {
  struct sockaddr_un address;
  int folder;
  pg_status status = make_address(path, &address, &folder);
  if (status) return status;
  status = clear_stale(path, &address);
  if (!status) {
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat made;
    /* a socket's own mode is that of the file which bind() makes: there is no moment with another one */
    if (c->listener < 0 || fchmod(c->listener, 0600) ||
        bind(c->listener, (struct sockaddr *)&address, sizeof address) || chmod(path, 0600) ||
        listen(c->listener, MAX_CLIENTS) || lstat(path, &made))
      status = pg_error(PG_ERROR_IO, "%s: %s", path, strerror(errno));
    else {
      c->device = made.st_dev;
      c->inode = made.st_ino;
    }
  }
  close(folder);
  return status;
}

pg_status pg_console_listen(pg_console **out, const char *path) {
  pg_console *c = calloc(1, sizeof *c);
  char *copy = strdup(path);
  if (!c || !copy) {
    free(c);
    free(copy);
    return pg_error(PG_ERROR_MEMORY, "console: out of memory");
  }
  c->path = copy;
  c->listener = -1;
  for (int k = 0; k < MAX_CLIENTS; k++) c->clients[k].fd = -1;
  pg_status status = open_listener(c, path);
  if (status) {
    if (c->listener >= 0) close(c->listener);
    free(copy);
    free(c);
    return status;
  }
  *out = c;
  return PG_OK;
}

void pg_console_free(pg_console *c) {
  if (!c) return;
  for (int k = 0; k < MAX_CLIENTS; k++) {
    peer_write(&c->clients[k]);
    peer_free(&c->clients[k]);
  }
  close(c->listener);
  struct stat now;
  if (!lstat(c->path, &now) && now.st_dev == c->device && now.st_ino == c->inode) unlink(c->path);
  free(c->path);
  free(c);
}

static void accept_clients(pg_console *c) {
  for (int round = 0; round < MAX_CLIENTS; round++) {
    int fd = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    int k = 0;
    while (k < MAX_CLIENTS && c->clients[k].id) k++;
    if (k == MAX_CLIENTS || !same_user(fd)) {
      close(fd);
      continue;
    }
    c->clients[k].fd = fd;
    c->clients[k].id = ++c->next_id;
  }
}

/* Something to hand out? */
static int waiting(const peer *p) {
  size_t used = p->in.start;
  if (!p->id) return 0;
  if (!p->announced || p->closed) return 1;
  peer ahead = *p;
  ahead.in.start = used + p->taken;
  return frame_length(&ahead) != -1;
}

int pg_console_poll(pg_console *c, int milliseconds) {
  struct pollfd list[MAX_CLIENTS + 1];
  int who[MAX_CLIENTS + 1], n = 1, ready = 0;
  list[0] = (struct pollfd){.fd = c->listener, .events = POLLIN};
  for (int k = 0; k < MAX_CLIENTS; k++) {
    peer *p = &c->clients[k];
    if (!p->id) continue;
    if (waiting(p)) ready = 1;
    if (p->closed) continue;
    who[n] = k;
    list[n++] = (struct pollfd){.fd = p->fd, .events = (short)(POLLIN | (buffer_held(&p->out) ? POLLOUT : 0))};
  }
  if (poll(list, (nfds_t)n, ready ? 0 : milliseconds) <= 0) return ready;
  for (int k = 1; k < n; k++) {
    peer *p = &c->clients[who[k]];
    if (list[k].revents & POLLOUT) peer_write(p);
    if (list[k].revents & (POLLIN | POLLHUP | POLLERR) && !waiting(p)) {
      p->in.start += p->taken;
      p->taken = 0;
      peer_read(p);
    }
  }
  if (list[0].revents & POLLIN) accept_clients(c);
  for (int k = 0; k < MAX_CLIENTS; k++) ready |= waiting(&c->clients[k]);
  return ready;
}

int pg_console_next(pg_console *c, int64_t *client, const char **frame, int64_t *bytes) {
  for (int round = 0; round < MAX_CLIENTS; round++) {
    peer *p = &c->clients[(c->turn + round) % MAX_CLIENTS];
    if (!p->id) continue;
    *client = p->id;
    if (!p->announced) {
      p->announced = 1;
      return PG_CONSOLE_OPENED;
    }
    int found = peer_frame(p, frame, bytes);
    if (!found && !p->closed) continue;
    c->turn = (c->turn + round + 1) % MAX_CLIENTS;
    if (found && !p->closed) return PG_CONSOLE_FRAME;
    peer_free(p);
    return PG_CONSOLE_CLOSED;
  }
  return PG_CONSOLE_NOTHING;
}

void pg_console_send(pg_console *c, int64_t client, const void *bytes, int64_t n) {
  for (int k = 0; k < MAX_CLIENTS; k++) {
    peer *p = &c->clients[k];
    if (p->id != client || p->closed) continue;
    if (n < 0 || n > MAX_FRAME || buffer_held(&p->out) + (size_t)n > MAX_QUEUED || !peer_queue(p, bytes, n))
      peer_end(p);
    else peer_write(p);
  }
}

/* ---- the client ----------------------------------------------------------------------------------------------- */

pg_status pg_console_connect(pg_console_link **out, const char *path) {
  struct stat found;
  struct sockaddr_un address;
  int folder;
  if (lstat(path, &found))
    return pg_error(PG_ERROR_IO,
                    errno == ENOENT ? "%s does not exist: no run is going there" : "%s: the console cannot be reached",
                    path);
  if (!S_ISSOCK(found.st_mode)) return pg_error(PG_ERROR_IO, "%s: not a socket", path);
  if (found.st_uid != geteuid())
    return pg_error(PG_ERROR_IO, "%s belongs to another user: consoles are for a run's own user", path);
  pg_status status = make_address(path, &address, &folder);
  if (status) return status;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int failed = fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address), reason = errno;
  close(folder);
  pg_console_link *link = NULL;
  if (failed && fd >= 0 && reason == ECONNREFUSED)
    status = pg_error(PG_ERROR_IO, "%s is stale: the run that made it has ended", path);
  else if (failed) status = pg_error(PG_ERROR_IO, "%s: %s", path, strerror(reason));
  else if (!same_user(fd)) status = pg_error(PG_ERROR_IO, "%s is served by another user", path);
  else if (!(link = calloc(1, sizeof *link))) status = pg_error(PG_ERROR_MEMORY, "console: out of memory");
  if (status) {
    if (fd >= 0) close(fd);
    return status;
  }
  link->server.fd = fd;
  link->server.id = 1;
  *out = link;
  return PG_OK;
}

void pg_console_disconnect(pg_console_link *link) {
  if (!link) return;
  peer_free(&link->server);
  free(link);
}

pg_status pg_console_write(pg_console_link *link, const void *bytes, int64_t n) {
  peer *p = &link->server;
  if (n < 0 || n > MAX_FRAME)
    return pg_error(PG_ERROR_ARGUMENT, "console: %lld bytes at once; at most %d go", (long long)n, MAX_FRAME);
  if (p->closed || !peer_queue(p, bytes, n)) return pg_error(PG_ERROR_IO, "console: the run has closed it");
  while (!p->closed && buffer_held(&p->out)) {
    struct pollfd ready = {.fd = p->fd, .events = POLLOUT};
    if (poll(&ready, 1, -1) < 0 && errno == EINTR) return pg_error(PG_ERROR_IO, "console: interrupted");
    peer_write(p);
  }
  return p->closed ? pg_error(PG_ERROR_IO, "console: the run has closed it") : PG_OK;
}

pg_status pg_console_read(pg_console_link *link, int milliseconds, const char **frame, int64_t *bytes) {
  peer *p = &link->server;
  *bytes = -1;
  if (peer_frame(p, frame, bytes)) return PG_OK;
  if (p->closed) return pg_error(PG_ERROR_IO, "console: the run has closed it");
  struct pollfd ready = {.fd = p->fd, .events = POLLIN};
  if (poll(&ready, 1, milliseconds) <= 0) return PG_OK;
  peer_read(p);
  peer_frame(p, frame, bytes);
  return PG_OK;
}
