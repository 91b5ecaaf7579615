/* Functions that vectorise: no errno, no tables, no branches. `stat` is float or double (cpu.h). The float32 versions
 * are within 2 ulp over the ranges stated; the float64 versions are the C library's, since float64 exists for
 * gradient checks, not for speed. */
#ifndef PERIGEE_KERNELS_CPU_MATH_H
#define PERIGEE_KERNELS_CPU_MATH_H

#if PG_REAL == 1
static inline double pg_exp(double x) { return exp(x); }
static inline double pg_tanh(double x) { return tanh(x); }
static inline double pg_erf(double x) { return erf(x); }
#else
/* e^x: x = n·ln2 + r with |r| <= ln2/2, a degree-6 polynomial in r, times 2^n in two halves so that results down to the
 * smallest subnormal come out right. Inputs beyond ±104 saturate to 0 or inf; NaN stays NaN. */
static inline float pg_exp(float x) {
  float clamped = x < -104.0f ? -104.0f : x;
  clamped = clamped > 89.0f ? 89.0f : clamped;
  float n = __builtin_rintf(clamped * 1.44269504088896341f);
  float r = __builtin_fmaf(n, -0.693359375f, clamped);
  r = __builtin_fmaf(n, 2.12194440e-4f, r);
  float p = 1.3981999507e-3f;
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 5.0000001201e-1f);
  p = __builtin_fmaf(p, r * r, r) + 1.0f;
  int32_t e = (int32_t)n, half = e / 2;
  uint32_t low = (uint32_t)(half + 127) << 23, high = (uint32_t)(e - half + 127) << 23;
  float a, b;
  memcpy(&a, &low, sizeof a);
  memcpy(&b, &high, sizeof b);
  return x != x ? x : p * a * b;
}

static inline float pg_tanh(float x) {
  float e = pg_exp(-2.0f * __builtin_fabsf(x));
  float t = (1.0f - e) / (1.0f + e);
  float s = x * x; /* near zero the difference above cancels: use the series */
  float series = __builtin_fabsf(x) * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * (-0.0539682540f + s * 0.0218694885f))));
  t = __builtin_fabsf(x) < 0.3f ? series : t;
  return __builtin_copysignf(t, x);
}
#endif

static inline stat pg_sigmoid(stat x) { return 1 / (1 + pg_exp(-x)); }

#endif
