"""The interpolant between data (t = 0) and noise (t = 1), and how times are drawn."""

import math

import torch


def coefficients(path, t):
    """alpha, sigma and their derivatives in t."""
    if path == "linear":
        return 1 - t, t, torch.full_like(t, -1.0), torch.ones_like(t)
    a, half = math.pi / 2 * t, math.pi / 2
    return a.cos(), a.sin(), -half * a.sin(), half * a.cos()


def interpolate(path, x0, noise, t):
    """x_t and the velocity target."""
    alpha, sigma, alpha_dot, sigma_dot = (v.view(-1, *[1] * (x0.dim() - 1)) for v in coefficients(path, t))
    return alpha * x0 + sigma * noise, alpha_dot * x0 + sigma_dot * noise


def lognormal_time(path, z):
    sigma = z.exp()
    return sigma / (1 + sigma) if path == "linear" else 2 / math.pi * torch.atan(sigma)
