/* mse: the mean of (a − b)² over all elements, and over each sample's.
 *   v[0] loss        stat []      =
 *   v[1] per_sample  stat [B]     = optional
 *   v[2] a           real [B,..]
 *   v[3] b           real [B,..] */
PG_KERNEL(mse)
PG_KERNEL_PLAN(mse)

/* mse_backward: da = (2·coefficient/(B·n) + 2·sample_coefficient/n) · (a − b), db = −da; n elements a sample.
 *   v[0] da                  real [B,..]  =
 *   v[1] db                  real [B,..]  = optional
 *   v[2] coefficient         stat []        optional: 0; the gradient of loss
 *   v[3] sample_coefficient  stat [B]       optional: 0; the gradient of per_sample
 *   v[4] a                   real [B,..]    da may be a itself, db may be b itself
 *   v[5] b                   real [B,..] */
PG_KERNEL(mse_backward)
