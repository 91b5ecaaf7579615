/* Functions that vectorise: no errno, no tables, no branches. `stat` is float or double (cpu.h). The float32 versions
 * are within the ulp stated for every float, with and without fused multiply-add; the float64 versions are the C
 * library's, since float64 exists for gradient checks, not for speed. Polynomials are weighted minimax fits. */
#ifndef PERIGEE_KERNELS_CPU_MATH_H
#define PERIGEE_KERNELS_CPU_MATH_H

/* PG_MATH(sqrt)(x): the C library's function for a stat. */
#if PG_REAL == 1
#define PG_MATH(function) function
static inline double pg_exp(double x) { return exp(x); }
static inline double pg_log(double x) { return log(x); }
static inline double pg_tanh(double x) { return tanh(x); }
static inline double pg_erf(double x) { return erf(x); }
#else
#define PG_MATH(function) function##f
static inline float pg_bits_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
static inline uint32_t pg_float_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

/* a·b + c, fused where the machine does that fast (without FMA instructions it would be a library call). */
static inline float pg_fma(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

/* For x = n·ln2 + r with |r| <= ln2/2: e^r, a polynomial; the low bits of *shifted hold n + bias. */
static inline float pg_exp_of_rest(float x, float bias, float *shifted) {
  const float magic = 12582912.0f + bias; /* 1.5·2^23: adding it rounds to an integer, which stands in the low bits */
  *shifted = pg_fma(x, 1.44269504088896341f, magic);
  float n = *shifted - magic;
  float r = pg_fma(n, -0.693359375f, x);
  r = pg_fma(n, 2.12194440e-4f, r);
  float p = 1.38146104e-3f;
  p = pg_fma(p, r, 8.36871006e-3f);
  p = pg_fma(p, r, 4.16683890e-2f);
  p = pg_fma(p, r, 1.66665211e-1f);
  p = pg_fma(p, r, 4.99999940e-1f);
  return pg_fma(p, r * r, r) + 1.0f;
}

/* e^x, 1 ulp: times 2^n in two halves so that results down to the smallest subnormal come out right. Beyond -104 and 89
 * it saturates to 0 and inf; NaN stays NaN. */
static inline float pg_exp(float x) {
  float clamped = x < -104.0f ? -104.0f : x, shifted;
  clamped = clamped > 89.0f ? 89.0f : clamped;
  float p = pg_exp_of_rest(clamped, 0, &shifted);
  int32_t e = (int32_t)(pg_float_bits(shifted) - 0x4b400000u), half = e >> 1;
  float low = pg_bits_float((uint32_t)(half + 127) << 23), high = pg_bits_float((uint32_t)(e - half + 127) << 23);
  return x != x ? x : p * low * high;
}

/* ln x, 1 ulp: x = 2^e·(1 + f) with 1 + f in [√½, √2). ln 0 = -inf, negative: NaN. */
static inline float pg_log(float x) {
  float small = x < 1.17549435e-38f ? 8388608.0f : 1.0f; /* subnormals are scaled by 2^23 */
  uint32_t bits = pg_float_bits(x * small);
  int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23;
  float f = pg_bits_float(bits - ((uint32_t)e << 23)) - 1.0f;
  float n = (float)e - (x < 1.17549435e-38f ? 23.0f : 0.0f);
  float p = -7.63442963e-2f;
  p = pg_fma(p, f, 1.27615497e-1f);
  p = pg_fma(p, f, -1.31601945e-1f);
  p = pg_fma(p, f, 1.42017618e-1f);
  p = pg_fma(p, f, -1.66233569e-1f);
  p = pg_fma(p, f, 2.00012267e-1f);
  p = pg_fma(p, f, -2.50008225e-1f);
  p = pg_fma(p, f, 3.33333313e-1f);
  float tail = pg_fma(n, -2.12194440e-4f, p * f * (f * f)); /* ln2 = 0.693359375 - 2.1219444e-4 */
  tail = pg_fma(-0.5f * f, f, tail);
  float y = pg_fma(n, 0.693359375f, f + tail);
  y = x == 0.0f ? -__builtin_inff() : y;
  y = x < 0.0f ? __builtin_nanf("") : y;
  return x - x == 0.0f || x < 0.0f ? y : x; /* inf and NaN stay */
}

/* tanh, 2 ulp: an odd polynomial near zero, 1 - 2/(e^(2|x|) + 1) elsewhere. */
static inline float pg_tanh(float x) {
  float a = __builtin_fabsf(x), s = x * x;
  float p = -6.17980864e-3f;
  p = pg_fma(p, s, 2.10074577e-2f);
  p = pg_fma(p, s, -5.38374297e-2f);
  p = pg_fma(p, s, 1.33324519e-1f);
  p = pg_fma(p, s, -3.33333135e-1f);
  p = pg_fma(p * s, a, a);
  float t = 1.0f - 2.0f / (pg_exp(2.0f * a) + 1.0f);
  return __builtin_copysignf(a < 0.5625f ? p : t, x);
}

/* erf, 2 ulp: x + x·P(x²) below 0.92; above, 1 - e^(-(t + t·Q(t))) with t + t·Q(t) = -ln erfc(t). */
static inline float pg_erf(float x) {
  float a = __builtin_fabsf(x), s = x * x, t = a > 4.0f ? 4.0f : a;
  float p = -5.99940424e-4f;
  p = pg_fma(p, s, 4.99483012e-3f);
  p = pg_fma(p, s, -2.67677195e-2f);
  p = pg_fma(p, s, 1.12818457e-1f);
  p = pg_fma(p, s, -3.76124978e-1f);
  p = pg_fma(p, s, 1.28379151e-1f);
  p = pg_fma(p, a, a);
  float q = -2.13985928e-4f;
  q = pg_fma(q, t, 3.21496301e-3f);
  q = pg_fma(q, t, -2.28899866e-2f);
  q = pg_fma(q, t, 1.05261877e-1f);
  q = pg_fma(q, t, 6.35718286e-1f);
  q = pg_fma(q, t, 1.28514364e-1f);
  q = 1.0f - pg_exp(-pg_fma(q, t, t));
  float y = __builtin_copysignf(a < 0.92f ? p : q, x);
  return x != x ? x : y;
}
#endif

static inline stat pg_sigmoid(stat x) { return 1 / (1 + pg_exp(-x)); }

#endif
