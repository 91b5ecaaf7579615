#ifndef PERIGEE_MSE_H
#define PERIGEE_MSE_H

#include "kernel.h"

/* mse: the mean of (a − b)² over all elements, and over each sample's.
 *   loss        stat []      =
 *   per_sample  stat [B]     = optional
 *   a           real [B,..]
 *   b           real [B,..] */
PG_KERNEL(mse, loss, per_sample, a, b)
PG_KERNEL_PLAN(mse)

/* mse_backward: da = (2·coefficient/(B·n) + 2·sample_coefficient/n) · (a − b), db = −da; n elements a sample.
 *   da                  real [B,..]  =
 *   db                  real [B,..]  = optional
 *   coefficient         stat []        optional: 0; the gradient of loss
 *   sample_coefficient  stat [B]       optional: 0; the gradient of per_sample
 *   a                   real [B,..]    da may be a itself, db may be b itself
 *   b                   real [B,..] */
PG_KERNEL(mse_backward, da, db, coefficient, sample_coefficient, a, b)

#endif
