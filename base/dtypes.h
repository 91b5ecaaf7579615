/* The dtypes: name, constant, the type of an element in C. CMake and Lua (core/ffi.lua) read these lines. */
#ifndef PERIGEE_DTYPES_H
#define PERIGEE_DTYPES_H

#include <stdint.h>

#define PG_FLOATING_DTYPES(X)     \
  X(float32, PG_FLOAT32, float)   \
  X(float64, PG_FLOAT64, double)  \
  X(bfloat16, PG_BFLOAT16, uint16_t)
#define PG_INTEGER_DTYPES(X)      \
  X(int32, PG_INT32, int32_t)     \
  X(int64, PG_INT64, int64_t)     \
  X(uint8, PG_UINT8, uint8_t)
#define PG_ALL_DTYPES(X) PG_FLOATING_DTYPES(X) PG_INTEGER_DTYPES(X)

#define PG_DTYPE_NUMBER(name, constant, type) constant,
#define PG_DTYPE_ONE(name, constant, type) +1
enum { PG_ALL_DTYPES(PG_DTYPE_NUMBER) PG_DTYPES, PG_INSTANCES = 0 PG_FLOATING_DTYPES(PG_DTYPE_ONE) };

/* Bytes of an element; 0: there is no such dtype. */
static inline int64_t pg_dtype_bytes(int dtype) {
#define PG_DTYPE_BYTES(name, constant, type) sizeof(type),
  static const uint8_t bytes[PG_DTYPES] = {PG_ALL_DTYPES(PG_DTYPE_BYTES)};
#undef PG_DTYPE_BYTES
  return dtype >= 0 && dtype < PG_DTYPES ? bytes[dtype] : 0;
}

static inline const char *pg_dtype_name(int dtype) {
#define PG_DTYPE_NAME(name, constant, type) #name,
  static const char *const names[PG_DTYPES] = {PG_ALL_DTYPES(PG_DTYPE_NAME)};
#undef PG_DTYPE_NAME
  return dtype >= 0 && dtype < PG_DTYPES ? names[dtype] : "unknown";
}

#endif
