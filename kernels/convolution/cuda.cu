/* Each of the three kernels is a product of matrices of which no operand lies in memory as such; cpu.c has the table
 * of them. A block makes a tile of out, reading both operands piece by piece of the depth into shared memory, in
 * float32. cuDNN is there for speed (cuda.c); this serves where it isn't, and any shape. */
#include "cuda.h"

#include "convolution/check.h"
#include "convolution/own.h"

enum { TILE = 64, PIECE = 16, THREADS = 256, EACH = TILE / 16 /* rows and columns of out that a thread makes */ };

struct geometry {
  int channels, height, width;                             /* of x */
  int outputs, kernel_height, kernel_width, rows, columns; /* of weight, and of an image of y */
  int stride, top, left;
  int tall, broad; /* out is tall × broad */
  int depth;
};

/* x at a position of y, seen through element `tap` of the kernels' [C,kh,kw]. */
static __device__ __forceinline__ float seen(const geometry &n, const real *x, int position, int tap) {
  const int plane = n.rows * n.columns, area = n.kernel_height * n.kernel_width;
  const int image = position / plane, p = position % plane / n.columns, q = position % n.columns;
  const int c = tap / area, i = tap % area / n.kernel_width, j = tap % n.kernel_width;
  const int h = p * n.stride + i - n.top, w = q * n.stride + j - n.left;
  if (h < 0 || h >= n.height || w < 0 || w >= n.width) return 0.0f;
  return load(x[(((int64_t)image * n.channels + c) * n.height + h) * n.width + w]);
}

/* dy that a position of x takes part in, by way of element `tap` of [O,kh,kw]. */
static __device__ __forceinline__ float reached(const geometry &n, const real *dy, int position, int tap) {
  const int plane = n.height * n.width, area = n.kernel_height * n.kernel_width;
  const int image = position / plane, h = position % plane / n.width, w = position % n.width;
  const int o = tap / area, i = tap % area / n.kernel_width, j = tap % n.kernel_width;
  const int down = h + n.top - i, across = w + n.left - j, p = down / n.stride, q = across / n.stride;
  if (down < 0 || across < 0 || p * n.stride != down || q * n.stride != across || p >= n.rows || q >= n.columns)
    return 0.0f;
  return load(dy[(((int64_t)image * n.outputs + o) * n.rows + p) * n.columns + q]);
}

/* Elements of a [B,rows,plane] as a matrix of `rows` by B·plane. */
static __device__ __forceinline__ int64_t across_images(int row, int column, int rows, int plane) {
  return ((int64_t)(column / plane) * rows + row) * plane + column % plane;
}

template <int KERNEL>
static __device__ __forceinline__ float left_at(const geometry &n, const real *left, int row, int k) {
  if (row >= n.tall || k >= n.depth) return 0.0f;
  const int area = n.kernel_height * n.kernel_width;
  if (KERNEL == CONVOLUTION_FORWARD) return load(left[(int64_t)row * n.depth + k]);
  if (KERNEL == CONVOLUTION_INPUT) return load(left[((int64_t)(k / area) * n.channels + row) * area + k % area]);
  return load(left[across_images(row, k, n.outputs, n.rows * n.columns)]);
}

template <int KERNEL>
static __device__ __forceinline__ float right_at(const geometry &n, const real *right, int k, int column) {
  if (column >= n.broad || k >= n.depth) return 0.0f;
  if (KERNEL == CONVOLUTION_FORWARD) return seen(n, right, column, k);
  if (KERNEL == CONVOLUTION_INPUT) return reached(n, right, column, k);
  return seen(n, right, k, column);
}

/* Grid: tiles across, tiles down. Neighbours in a warp read side by side: the left operand along the depth, the
 * right one along the positions, which are the depth of backward_weight. */
template <int KERNEL>
static __global__ void __launch_bounds__(THREADS)
    multiply(geometry n, real *out, const real *left, const real *right, const real *bias) {
  PG_SHARED(float, a, [PIECE][TILE + 1]);
  PG_SHARED(float, b, [PIECE][TILE + 1]);
  const int row = blockIdx.y * TILE, column = blockIdx.x * TILE, slow = threadIdx.x / 16, fast = threadIdx.x % 16;
  float sum[EACH][EACH] = {};
  for (int start = 0; start < n.depth; start += PIECE) {
    for (int e = threadIdx.x; e < PIECE * TILE; e += THREADS) {
      const int k = e % PIECE, r = e / PIECE;
      const int depth = KERNEL == CONVOLUTION_WEIGHT ? k : e / TILE, c = KERNEL == CONVOLUTION_WEIGHT ? r : e % TILE;
      a[k][r] = left_at<KERNEL>(n, left, row + r, start + k);
      b[depth][c] = right_at<KERNEL>(n, right, start + depth, column + c);
    }
    __syncthreads();
    for (int k = 0; k < PIECE; k++)
      for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) sum[i][j] += a[k][slow + 16 * i] * b[k][fast + 16 * j];
    __syncthreads();
  }
  for (int i = 0; i < EACH; i++)
    for (int j = 0; j < EACH; j++) {
      const int r = row + slow + 16 * i, c = column + fast + 16 * j;
      if (r >= n.tall || c >= n.broad) continue;
      const int plane = KERNEL == CONVOLUTION_FORWARD ? n.rows * n.columns
                        : KERNEL == CONVOLUTION_INPUT ? n.height * n.width
                                                      : n.broad;
      out[across_images(r, c, n.tall, plane)] = store(sum[i][j] + (bias ? load(bias[r]) : 0.0f));
    }
}

template <int KERNEL> static void launch(const pg_call *call, const geometry &n) {
  const convolution_tensors t = convolution_tensors_of(call, KERNEL);
  const pg_view *out = KERNEL == CONVOLUTION_FORWARD ? t.y : KERNEL == CONVOLUTION_INPUT ? t.x : t.weight;
  const pg_view *left = KERNEL == CONVOLUTION_WEIGHT ? t.y : t.weight;
  const pg_view *right = KERNEL == CONVOLUTION_INPUT ? t.y : t.x;
  const dim3 grid(pg_blocks(n.broad, TILE), pg_blocks(n.tall, TILE));
  LAUNCH(multiply<KERNEL>, grid, THREADS, 0, call->stream, n, pg_data<real>(out), pg_data<const real>(left),
         pg_data<const real>(right), pg_data<const real>(t.bias));
}

pg_status PG_CUDA(convolution_own)(const pg_call *call, int kernel) {
  pg_status status = expect_convolution(call, kernel);
  if (status) return status;
  const convolution_tensors t = convolution_tensors_of(call, kernel);
  const convolution_size s = convolution_sizes(call, kernel);
  const int64_t area = s.kernel_height * s.kernel_width, taps = s.channels * area;
  const int64_t positions = s.images * s.rows * s.columns;
  const int64_t pixels = s.images * s.height * s.width, most = INT32_MAX - TILE;
  PG_EXPECT(positions <= most && pixels <= most && taps <= most && s.outputs * area <= most && s.stride <= 1 << 16 &&
                s.channels <= 65535 * TILE && s.outputs <= 65535 * TILE,
            "%s: x is %s, y is %s; too large for CUDA", convolution_name(kernel),
            pg_shape_text(t.x), pg_shape_text(t.y));
  geometry n = {(int)s.channels,     (int)s.height,  (int)s.width,   (int)s.outputs, (int)s.kernel_height,
                (int)s.kernel_width, (int)s.rows,    (int)s.columns, (int)s.stride,  (int)s.top,
                (int)s.left,         (int)s.outputs, (int)positions, (int)taps};
  switch (kernel) {
  case CONVOLUTION_FORWARD: launch<CONVOLUTION_FORWARD>(call, n); break;
  case CONVOLUTION_INPUT:
    n.tall = n.channels, n.broad = (int)pixels, n.depth = (int)(s.outputs * area);
    launch<CONVOLUTION_INPUT>(call, n);
    break;
  default: n.broad = (int)taps, n.depth = (int)positions; launch<CONVOLUTION_WEIGHT>(call, n);
  }
  return pg_launched(convolution_name(kernel));
}

/* Every pixel as a square of `times` by `times`; to is [rows·times, width·times]. */
static __global__ void repeat_pixels(real *to, const real *from, int64_t total, int width, int times) {
  PG_GRID_STRIDE(k, total) {
    const int64_t row = k / (width * times), column = k % (width * times);
    to[k] = from[row / times * width + column / times];
  }
}

pg_status PG_CUDA(convolution_enlarge)(const pg_call *call) {
  const pg_view *x = convolution_3x3_of(call).x;
  const int64_t times = convolution_3x3_ints_of(call).enlarge, total = pg_numel(x) * times * times;
  LAUNCH(repeat_pixels, pg_stride_blocks(total, THREADS), THREADS, 0, call->stream,
         static_cast<real *>(call->scratch), pg_data<const real>(x), total, (int)x->shape[3], (int)times);
  return pg_launched("convolution_3x3");
}
