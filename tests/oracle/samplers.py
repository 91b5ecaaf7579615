"""Euler, Heun and Euler-Maruyama from noise to data. A field is a function (x, t, labels) -> velocity."""

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
