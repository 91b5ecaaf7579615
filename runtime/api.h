/* perigee.h for C and C++ code: the types below it, C linkage and visibility. */
#ifndef PERIGEE_API_H
#define PERIGEE_API_H

#include "kernel.h"

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
