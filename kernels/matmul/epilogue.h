/* The epilogues that cuBLASLt lacks, as a pass of its own over the product (cuda.cu). */
#ifndef PERIGEE_MATMUL_EPILOGUE_H
#define PERIGEE_MATMUL_EPILOGUE_H

#include "kernel.h"

typedef struct matmul_epilogue {
  int64_t rows, columns; /* of all matrices of the batch, one under the other */
  void *out;             /* real [rows,columns]  = f(x), or x·f'(aux) */
  void *pre;             /* real [rows,columns]  = x; NULL: not wanted */
  const void *product;   /* real [rows,columns]; may be out or pre. NULL: zero */
  const void *bias;      /* real [columns], added to the product to make x, or NULL */
  const void *aux;       /* real [rows,columns], for derivatives */
  int activation;
} matmul_epilogue;

#ifdef __cplusplus
extern "C" {
#endif
pg_status matmul_epilogue_cuda_float32(const matmul_epilogue *e, void *stream);
pg_status matmul_epilogue_cuda_bfloat16(const matmul_epilogue *e, void *stream);
#ifdef __cplusplus
}
#endif

#endif
