"""diffusion: the public DiT's own diffusion/ (a folder given by --dit) on a small DiT: losses, gradients, samples."""

import sys

import torch

import sit
from store import Draw, Fixture
import store

CONFIG = sit.Config(width=32, depth=2, heads=2, patch=2, channels=4, height=4, columns=6, classes=5, sigma=True)
TIMES = [0, 1, 5, 250, 700, 999, 0]
RESPACED = {"even": "250", "stride": "ddim125"}


def public(folder):
    sys.path.insert(0, str(folder))
    import diffusion
    from diffusion import gaussian_diffusion as gd

    def extract(table, index, shape):
        value = torch.from_numpy(table).to(store.compute)[index]
        return value.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)

    gd._extract_into_tensor = extract  # the public one rounds its tables to float32
    return diffusion, gd


def noises(gd, list_of):
    """Public code draws noise; here it takes it from a list."""
    left = list(list_of)
    gd.th = type(sys)("th")
    gd.th.__dict__.update(torch.__dict__)
    gd.th.randn_like = lambda x: left.pop(0)


def build_losses(fixture, diffusion, w, draw):
    x0, noise = draw.normal(len(TIMES), 4, 4, 6, scale=0.7), draw.normal(len(TIMES), 4, 4, 6)
    x0[0, :, 0], x0[0, :, 1] = 1.0, -1.0
    k, y = torch.tensor(TIMES), torch.tensor([0, 5, 3, 2, 1, 4, 1])
    for value in w.values():
        value.requires_grad_()
    names = [name for name in w if name != "pos_embed"]

    def model(x, t, y):
        return sit.forward(w, CONFIG, x, t.to(x.dtype), y)

    terms = diffusion.create_diffusion("").training_losses(model, x0, k, dict(y=y), noise=noise)
    loss = terms["loss"].mean()
    gradients = torch.autograd.grad(loss, [w[name] for name in names])
    fixture.put_all("", {"x0": x0, "noise": noise, "k": k, "y": y})
    for name in ("mse", "vb"):
        fixture.exact(name, terms[name])
    fixture.exact("loss", loss)
    fixture.put_all("gradient.", dict(zip(names, gradients)))


def build_samples(fixture, diffusion, gd, w, draw):
    x, y = draw.normal(2, 4, 4, 6), torch.tensor([1, 4])
    noise = draw.normal(8, 2, 4, 4, 6)
    fixture.put_all("sample.", {"x": x, "y": y, "noise": noise})

    def model(inputs, t, y, outputs=8):
        return sit.forward(w, CONFIG, inputs, t.to(inputs.dtype), y)[:, :outputs]

    with torch.no_grad():
        for name, options, outputs in (("learned", {}, 8), ("large", dict(learn_sigma=False), 4),
                                       ("small", dict(learn_sigma=False, sigma_small=True), 4)):
            noises(gd, noise)
            made = diffusion.create_diffusion("8", **options).p_sample_loop(
                lambda inputs, t, y: model(inputs, t, y, outputs), x.shape, noise=x, clip_denoised=False,
                model_kwargs=dict(y=y), device="cpu")
            fixture.exact("ddpm." + name, made)
        for eta in (0.0, 0.5):
            noises(gd, noise)
            made = diffusion.create_diffusion("ddim8").ddim_sample_loop(
                model, x.shape, noise=x, clip_denoised=False, model_kwargs=dict(y=y), device="cpu", eta=eta)
            fixture.exact(f"ddim.{eta}", made)


def build(folder):
    if not folder:
        return
    diffusion, gd = public(folder)
    draw = Draw(401)
    w = sit.draw_weights(CONFIG, draw)
    weights = Fixture("diffusion.weights", **vars(CONFIG))
    weights.put_all("", w)
    yield weights
    fixture = Fixture("diffusion", **vars(CONFIG), weights="diffusion.weights.safetensors")
    for schedule in ("linear", "squaredcos_cap_v2"):
        whole = diffusion.create_diffusion("", noise_schedule=schedule)
        fixture.exact(schedule + ".kept", whole.alphas_cumprod[::37])
        fixture.exact(schedule + ".log_posterior", whole.posterior_log_variance_clipped[::37])
    for spacing, text in RESPACED.items():
        coarse = diffusion.create_diffusion(text)
        fixture.put(spacing + ".index", torch.tensor(coarse.timestep_map))
        fixture.exact(spacing + ".beta", coarse.betas)
    build_losses(fixture, diffusion, w, draw)
    build_samples(fixture, diffusion, gd, {name: value.detach() for name, value in w.items()}, draw)
    yield fixture
