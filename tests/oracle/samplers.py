"""Euler, Heun and Euler-Maruyama from noise to data. A field is a function (x, t, labels) -> velocity."""

import math

import torch

import paths


def guided(field, labels, null, scale, interval):
    """Classifier-free guidance by the time at which the field is asked."""
    def velocity(x, t):
        conditional = field(x, t, labels)
        if scale == 1 or not interval[0] <= t <= interval[1]:
            return conditional
        unconditional = field(x, t, torch.full_like(labels, null))
        return unconditional + scale * (conditional - unconditional)
    return velocity


def ode(velocity, x, steps, heun):
    """States [steps+1, ...]; Heun's last step is an Euler step."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    states = [x]
    for i, (t, following) in enumerate(zip(times, times[1:])):
        dt = following - t
        d = velocity(x, t)
        moved = x + dt * d
        if heun and i + 1 < steps:
            moved = x + dt * 0.5 * (d + velocity(moved, following))
        x = moved
        states.append(x)
    return torch.stack(states), times


def sde(velocity, path, x, steps, noise):
    """States [steps+1, ...]; step i (from 0) adds noise[i], the last one none. Diffusion w(t) = 2t."""
    times = torch.linspace(1, 0.04, steps, dtype=torch.float64).tolist() + [0.0]
    states = [x]
    for i, (t, following) in enumerate(zip(times, times[1:])):
        dt, w = following - t, 2 * t
        alpha, sigma, alpha_dot, sigma_dot = paths.coefficients(path, torch.tensor(t, dtype=x.dtype))
        v = velocity(x, t)
        r = alpha / alpha_dot
        score = (r * v - x) / (sigma ** 2 - r * sigma_dot * sigma)
        x = x + (v - 0.5 * w * score) * dt
        if i + 1 < steps:
            x = x + (w * abs(dt)) ** 0.5 * noise[i]
        states.append(x)
    return torch.stack(states), times


def official_sde(velocity, path, x, steps, noise, form, norm, last, size, heun):
    """The last state of SiT's sample_sde, in its own time: 0 is noise, 1 data, and the velocity points to the data."""
    def coefficients(t):
        alpha, sigma, d_alpha, d_sigma = (float(c) for c in paths.coefficients(path, torch.tensor(1 - t, dtype=x.dtype)))
        return alpha, sigma, -d_alpha, -d_sigma

    def v(x, t):
        return -velocity(x, 1 - t)

    def score(x, t):
        alpha, sigma, d_alpha, d_sigma = coefficients(t)
        ratio = alpha / d_alpha
        return (ratio * v(x, t) - x) / (sigma ** 2 - ratio * d_sigma * sigma)

    def diffusion(t):
        return {"constant": norm, "sigma": norm * coefficients(t)[1], "linear": norm * (1 - t),
                "decreasing": 0.25 * (norm * math.cos(math.pi * t) + 1) ** 2,
                "increasing_decreasing": norm * math.sin(math.pi * t) ** 2}[form]

    def drift(x, t):
        return v(x, t) + diffusion(t) * score(x, t)

    end = 1 - (0 if last == "none" else size)
    times = torch.linspace(0, end, steps, dtype=torch.float64).tolist()
    dt = times[1] - times[0]
    for i, t in enumerate(times[:-1]):
        dw = noise[i] * dt ** 0.5
        if heun:
            stirred = x + (2 * diffusion(t)) ** 0.5 * dw
            first = drift(stirred, t)
            x = stirred + 0.5 * dt * (first + drift(stirred + dt * first, t + dt))
        else:
            x = x + drift(x, t) * dt + (2 * diffusion(t)) ** 0.5 * dw
    if last == "mean":
        return x + drift(x, end) * size
    if last == "euler":
        return x + v(x, end) * size
    if last == "tweedie":
        alpha, sigma, _, _ = coefficients(end)
        return x / alpha + sigma ** 2 / alpha * score(x, end)
    return x


def shifted_ode(velocity, x, steps, shift):
    """Euler's last state on a grid that is moved towards noise."""
    times = [shift * t / (1 + (shift - 1) * t) for t in torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()]
    for t, following in zip(times, times[1:]):
        x = x + (following - t) * velocity(x, t)
    return x


class Mixture:
    """The exact velocity where class y is a mixture of K Gaussians N(mean[y,k], spread^2 I), weights share[y,k].

    With V = alpha^2 spread^2 + sigma^2 and d = x - alpha mean_k:
      p_k = softmax over k of  log share_k - |d|^2 / (2V)
      v   = sum_k p_k (alpha' (mean_k + alpha spread^2 d / V) + sigma' sigma d / V)
    """

    def __init__(self, path, mean, share, spread):
        self.path, self.mean, self.share, self.spread = path, mean, share, spread

    def __call__(self, x, t, labels):
        alpha, sigma, alpha_dot, sigma_dot = paths.coefficients(self.path, torch.tensor(t, dtype=x.dtype))
        mean, share = self.mean[labels], self.share[labels]
        variance = alpha ** 2 * self.spread ** 2 + sigma ** 2
        d = x.flatten(1)[:, None] - alpha * mean
        p = (share.log() - (d ** 2).sum(-1) / (2 * variance)).softmax(-1)[..., None]
        each = alpha_dot * (mean + alpha * self.spread ** 2 * d / variance) + sigma_dot * sigma * d / variance
        return (p * each).sum(1).view_as(x)
