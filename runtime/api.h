/* perigee.h for C and C++ code: the types it takes for granted, C linkage and visibility. */
#ifndef PERIGEE_API_H
#define PERIGEE_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
#include "perigee.h"
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
