/* timestep_embedding: sinusoids of the time at `half` = ⌊width/2⌋ frequencies (DiT, arXiv 2212.09748),
 *   y[b,k] = cos(t_b·f_k),  y[b,half+k] = sin(t_b·f_k),  f_k = max_period^(−k/half);  the last column of an odd width is 0
 *   v[0] y  real [B,width]  =
 *   v[1] t  stat [B]          as it is, not scaled
 *   f[0] max_period */
PG_KERNEL(timestep_embedding)
