/* The loader's parts: where samples come from (fields.c) and in what order and guise (order.c). */
#ifndef PERIGEE_LOADER_H
#define PERIGEE_LOADER_H

#include <limits.h>
#include <stdatomic.h>

#include "internal.h"

/* ---- order.c: what is drawn for a position, from the seed alone ---- */

/* The permutation of one epoch. */
typedef struct pg_order {
  uint32_t *permutation; /* [count] */
  int64_t epoch;         /* -1: none yet */
} pg_order;

/* The sample at a position of the endless sequence. */
pg_status pg_order_at(pg_order *order, const pg_loader_options *o, int64_t position, int64_t *index);
void pg_order_free(pg_order *order);

typedef struct pg_augmentation {
  bool flip;
  int64_t down, right; /* shift of the content, −padding ... padding */
} pg_augmentation;

pg_augmentation pg_augmentation_at(const pg_loader_options *o, int64_t position);

/* ---- fields.c: one property of every sample ---- */

enum { PG_FIELD_TENSOR, PG_FIELD_FILE, PG_FIELD_MAPPED, PG_FIELD_FILES, PG_FIELD_PICTURES };

typedef struct pg_field {
  int kind;
  pg_view view; /* dtype, ndim and shape of one sample */
  int64_t sample_bytes;
  bool augment, wanted;
  int resize;                          /* PG_RESIZE_...: of pictures */
  pg_tensor *tensor;                   /* PG_FIELD_TENSOR */
  int fd;                              /* PG_FIELD_FILE */
  char *path;                          /* the file, or the folder of files */
  int64_t offset;                      /* of the first record; for files: the header's bytes */
  const uint8_t *map;                  /* PG_FIELD_MAPPED: the file */
  int64_t map_bytes, stride, mirrored; /* from a sample to the next, and to its mirror image */
  uint32_t seed;                       /* of the records' sums */
  atomic_uchar *sound;                 /* by record: 1 once its sum was found right */
  char *names;                         /* zero-terminated names, one after another */
  uint32_t *name_at;                   /* [count]: where each begins */
  char *mirrored_path;                 /* the folder of the mirror images' files */
  char *archives;                      /* zero-terminated names; NULL: the files lie in the folder */
  uint32_t *archive_at;                /* [n_archives] */
  int n_archives;
  pg_place *places, *mirrored_places;  /* [count]: of the files, and of their mirror images' */
  char *header;
  int64_t below;                       /* > 0: each int64 element is from 0 to below − 1, */
  char *what;                          /* and is called so in an error */
} pg_field;

pg_status pg_field_shape(pg_field *f, int dtype, int ndim, const int64_t *shape, int augment);
pg_status pg_field_tensor(pg_field *f, int64_t count, pg_tensor *data, int augment);
pg_status pg_field_file(pg_field *f, int64_t count, const char *path, int64_t offset);
pg_status pg_field_mapped(pg_field *f, int64_t count, const char *path, int64_t offset, int64_t stride,
                          int64_t mirrored, uint32_t seed);
pg_status pg_field_header(pg_field *f, const void *header, int64_t header_bytes);
pg_status pg_field_below(pg_field *f, int64_t below, const char *what);
void pg_field_free(pg_field *f);
/* Bytes and a zero after them in memory from pg_host_calloc; NULL after pg_error(). */
char *pg_field_copy(const char *bytes, size_t length);
/* One sample to out [sample_bytes]; called by several threads at once. */
pg_status pg_field_sample(const pg_field *f, int64_t index, const pg_augmentation *a, uint8_t *out);

/* ---- members.c: the files of a field, in a folder or in archives ---- */

pg_status pg_field_names(pg_field *f, int64_t count, const char *folder, const char *names, int64_t names_bytes);
pg_status pg_field_archives(pg_field *f, int64_t count, const char *archives, int64_t bytes, int n,
                            const pg_place *places);
pg_status pg_field_mirrored(pg_field *f, int64_t count, const char *folder, const pg_place *places);
void pg_field_members_free(pg_field *f);
/* The path of a sample's file in the folder. */
pg_status pg_field_path(const pg_field *f, int64_t index, bool mirrored, char path[PATH_MAX]);
/* Where a sample lies, for an error: its file, or its archive and member; "" where it is in memory. */
void pg_field_label(const pg_field *f, int64_t index, bool mirrored, char label[PATH_MAX]);
/* The bytes of a sample's file in an archive, in memory from pg_host_calloc, also after an error the caller's to free;
 * `label` is what an error calls it. */
pg_status pg_field_member(const pg_field *f, int64_t index, bool mirrored, char label[PATH_MAX], char **bytes,
                          int64_t *size);

#endif
