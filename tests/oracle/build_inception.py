"""inception: the network of FID and the numbers made of its features, by torch-fidelity and pytorch-fid themselves.

The network's weights come from a formula (below), for tests only. Both packages need torchvision to be imported, of which
nothing is used here: a stand-in does."""

import sys
import types

import numpy
import torch

from store import Draw, Fixture

SIZES = {"small": (40, 56), "square": (300, 300)}


def unit(name, count):
    """Numbers in [-1, 1) out of a 32-bit hash of a name and a place."""
    h = 2166136261
    for c in name.encode():
        h = ((h ^ c) * 16777619) & 0xFFFFFFFF
    x = (numpy.uint32(h) + numpy.arange(count, dtype=numpy.uint32) * numpy.uint32(0x9E3779B9)).astype(numpy.uint32)
    x ^= x >> numpy.uint32(16)
    x *= numpy.uint32(0x7FEB352D)
    x ^= x >> numpy.uint32(15)
    x *= numpy.uint32(0x846CA68B)
    x ^= x >> numpy.uint32(16)
    return x.astype(numpy.float64) / 2147483648.0 - 1.0


def value(name, shape):
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    u = unit(name, int(numpy.prod(shape))).reshape(shape)
    if name.endswith(".conv.weight"):
        u *= numpy.sqrt(6.0 / numpy.prod(shape[1:]))
    elif name.endswith(".bn.weight"):
        u = 1 + 0.1 * u
    elif name.endswith(".bn.bias"):
        u *= 0.05
    elif name.endswith(".running_mean"):
        u *= 0.1
    elif name.endswith(".running_var"):
        u = 1 + 0.25 * u
    elif name == "fc.weight":
        u *= numpy.sqrt(3.0 / 2048)
    elif name == "fc.bias":
        u *= 0.1
    else:
        raise ValueError(name)
    return torch.from_numpy(u.astype(numpy.float32))


def stand_in_for_torchvision():
    class Absent:
        def __init__(self, *a, **k):
            raise RuntimeError("torchvision is not here")

    class Module(types.ModuleType):
        __path__ = []

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Absent

    for name in ("", ".transforms", ".transforms.functional", ".datasets", ".models", ".models.utils",
                 ".models.inception", ".models.feature_extraction", ".ops", ".utils", ".io"):
        module = Module("torchvision" + name)
        sys.modules["torchvision" + name] = module
        parent, _, last = ("torchvision" + name).rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    import enum
    sys.modules["torchvision"].__version__ = "0"
    sys.modules["torchvision.transforms"].InterpolationMode = enum.Enum(
        "InterpolationMode", {n.upper(): n for n in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")})
    sys.modules["torchvision.transforms.functional"].InterpolationMode = \
        sys.modules["torchvision.transforms"].InterpolationMode
    sys.modules["torchvision.models.utils"].load_state_dict_from_url = None


def network():
    """torch-fidelity's, in float64, without its file of weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as package

    class Stop(Exception):
        pass

    shapes, load, strict = {}, torch.load, package.FeatureExtractorInceptionV3.load_state_dict

    def probe(self, state):
        shapes.update({k: tuple(v.shape) for k, v in self.state_dict().items()})
        raise Stop

    package.FeatureExtractorInceptionV3.load_state_dict = probe
    torch.load = lambda *a, **k: {}
    try:
        package.FeatureExtractorInceptionV3("probe", ["2048"], feature_extractor_weights_path="none")
    except Stop:
        pass
    package.FeatureExtractorInceptionV3.load_state_dict = strict
    torch.load = lambda *a, **k: {name: value(name, shape) for name, shape in shapes.items()}
    made = package.FeatureExtractorInceptionV3("fid", ["2048", "logits_unbiased"],
                                               feature_extractor_weights_path="none",
                                               feature_extractor_internal_dtype="float64")
    torch.load = load
    return made.double()


def body(net, x):
    """Features of pictures that are preprocessed already, by the same network."""
    blocks = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
              "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d",
              "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"]
    for name in blocks:
        x = getattr(net, name)(x)
    return x.mean((2, 3))


def pillow_bicubic(images):
    """clean-fid's: each channel as floats, by Pillow."""
    from PIL import Image
    out = numpy.empty((len(images), 3, 299, 299))
    for k, image in enumerate(images):
        for c in range(3):
            channel = Image.fromarray(image[:, :, c].astype(numpy.float32), mode="F")
            out[k, c] = numpy.asarray(channel.resize((299, 299), resample=Image.Resampling.BICUBIC)).clip(0, 255)
    return torch.from_numpy(out)


def build():
    stand_in_for_torchvision()
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
    net, draw, fixture = network(), Draw(801), Fixture("inception")
    for tag, (height, width) in SIZES.items():
        rough = draw.normal(1, 3, height // 4 + 1, width // 4 + 1)
        smooth = torch.nn.functional.interpolate(rough, size=(height, width), mode="bicubic")
        pictures = (128 + 60 * smooth + 10 * draw.normal(1, 3, height, width)).clamp(0, 255).round().to(torch.uint8)
        if tag == "small":
            fixture.put(tag + ".pictures", pictures.permute(0, 2, 3, 1).to(torch.int64))
        else:  # a formula, so that the fixture stays small
            at = torch.arange(height * width * 3).reshape(1, height, width, 3)
            pictures = ((at * at * 7 + at * 31) // 64 % 256).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
        seen = {}
        handle = net.Mixed_6d.register_forward_hook(lambda m, i, o: seen.update(spatial=o))
        with torch.no_grad():
            resized = interpolate_bilinear_2d_like_tensorflow1x(pictures.double(), size=(299, 299),
                                                                 align_corners=False)
            features = body(net, (resized.double() - 128) / 128)
            handle.remove()
            fixture.put(tag + ".features", features)
            fixture.put(tag + ".logits", features @ net.fc.weight.T)
            fixture.put(tag + ".spatial", seen["spatial"][:, :7].permute(0, 2, 3, 1).reshape(1, -1))
            x = pictures.double()
            half_pixel = torch.nn.functional.interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False)
            fixture.put(tag + ".pytorch_fid", body(net, 2 * half_pixel - 1))
            by_pillow = pillow_bicubic(pictures.permute(0, 2, 3, 1).numpy())
            fixture.put(tag + ".clean_fid", body(net, (by_pillow - 128) / 128))
    yield fixture
    yield numbers()


def half(x):
    return numpy.asarray(x).astype(numpy.float16).astype(numpy.float32)


def distances(u, v, rounded):
    """The ADM evaluator's: sums in float32, every result rounded to float16; or float32 throughout."""
    kept = half if rounded else lambda x: numpy.asarray(x, dtype=numpy.float32)
    with numpy.errstate(over="ignore", invalid="ignore"):
        u, v = kept(u), kept(v)
        products = kept(u @ v.T)
        norms_u, norms_v = (kept(kept(x * x).sum(1)) for x in (u, v))
        d = kept(kept(norms_u[:, None] - kept(2 * products)) + norms_v[None])
    if rounded and not numpy.isfinite(d).all():
        return distances(u, v, False)
    return numpy.maximum(d, 0)


def precision_and_recall(reference, samples, rounded):
    def radii(x):
        return numpy.partition(distances(x, x, rounded), 3, axis=1)[:, 3]

    between = distances(reference, samples, rounded)
    inside_reference = (between <= radii(reference)[:, None]).any(0)
    inside_samples = (between <= radii(samples)[None]).any(1)
    return inside_reference.mean(), inside_samples.mean()


def inception_score(logits, part):
    scores = []
    p = torch.from_numpy(logits).softmax(1).numpy()
    for first in range(0, len(p), part):
        own = p[first:first + part]
        scores.append(numpy.exp((own * (numpy.log(own) - numpy.log(own.mean(0)))).sum(1).mean()))
    return numpy.mean(scores), numpy.std(scores)


def numbers():
    """numbers: sets of features and what torch-fidelity and numpy make of them."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_kid import kernel_mmd
    from torch_fidelity.metric_prc import prc_features_to_metric
    draw, fixture = Draw(802), Fixture("five_numbers")
    mix = draw.normal(24, 24, scale=0.3)
    a = (draw.normal(300, 24) @ mix).relu().float()
    b = (draw.normal(260, 24) @ mix * 1.1 + 0.05).relu().float()
    logits = draw.normal(107, 10, scale=2).float()
    fixture.put_all("", {"reference": a, "samples": b, "class_logits": logits})
    x, y = a.double().numpy(), b.double().numpy()
    statistics = [{"mu": s.mean(0), "sigma": numpy.cov(s, rowvar=False)} for s in (x, y)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    fixture.exact("fid", torch.tensor([fid], dtype=torch.float64))
    fixture.exact("kid", torch.tensor([kernel_mmd(
        x[:260], y, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1)], dtype=torch.float64))
    theirs = prc_features_to_metric(b, a, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
    fixture.exact("fidelity", torch.tensor([theirs["precision"], theirs["recall"]], dtype=torch.float64))
    for name, factor in {"": 1.0, "large.": 64.0, "small.": 2.0 ** -11}.items():
        for rounded in (True, False):
            pair = precision_and_recall(a.numpy() * numpy.float32(factor), b.numpy() * numpy.float32(factor), rounded)
            fixture.exact(f"{name}{'half' if rounded else 'single'}", torch.tensor(pair, dtype=torch.float64))
    grid = draw.normal(1, 7, 7, 5).float()
    scaled = torch.nn.functional.interpolate(grid.double().permute(0, 3, 1, 2), mode="bicubic",
                                             scale_factor=((4 + 0.1) / 7, (3 + 0.1) / 7))
    fixture.put("positions", torch.cat([torch.full((1, 1, 5), 2.0), grid.reshape(1, 49, 5)], 1))
    fixture.put("positions_4x3", scaled.permute(0, 2, 3, 1).reshape(1, 12, 5))
    fixture.exact("score", torch.tensor(inception_score(logits.double().numpy(), 25), dtype=torch.float64))
    return fixture
