"""encoder_*: encoders as transformers and timm compute them, at reduced size, with all weights random.

Needs transformers 5.24.0 and timm 1.0.31 besides PyTorch. A weights file holds what their `save_pretrained` or `state_dict` say.
"""

import os
import tempfile

import torch
import torch.nn.functional as F

import store
from build_student import weights
from store import Draw, Fixture

WIDTH, HEADS, DEPTH = 24, 2, 2
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def randomise(model, draw):
    """Every parameter random, norms' and LayerScale's about 1; in float64, rounded to float32."""
    model.eval()
    for name, p in model.named_parameters():
        around_one = p.ndim == 1 and ("norm" in name or "layrnorm" in name or "lambda" in name or "ln_" in name)
        p.data = draw.normal(*p.shape, scale=0.3 if p.ndim == 1 else 0.6 / (p.shape[-1] ** 0.5 if p.ndim == 2 else 1),
                             mean=1.0 if around_one and not name.endswith("bias") else 0.0)
        p.requires_grad_(False)
    return model.to(store.compute)


def preprocess(images, statistics, size, mode="bicubic", antialias=False):
    mean, deviation = (torch.tensor(v, dtype=images.dtype)[None, :, None, None] for v in statistics)
    return F.interpolate((images - mean) / deviation, size=size, mode=mode, align_corners=False, antialias=antialias)


def saved(model):
    """The tensors of the file that transformers write."""
    with tempfile.TemporaryDirectory() as folder:
        model.to(torch.float32).save_pretrained(folder)
        tensors = store.read(os.path.join(folder, "model.safetensors"))
    model.to(store.compute)
    return store.raised(tensors)


def pictures(seed, size=(20, 18)):
    return Draw(seed).uniform(2, 3, *size)


def fixture(name, images, values, settings):
    made = Fixture(name, **settings)
    made.put("images", images)
    made.put_all("", values)
    return made


def of_transformers(name, model, seed, settings, statistics=IMAGENET, resize=None, prefix=1, normed=True, **call):
    """A fixture and its weights: tokens, blocks and attention maps of a model of transformers."""
    size = settings["image"]
    model = randomise(model, Draw(seed))
    images = pictures(seed + 1)
    out = model(preprocess(images, statistics, size, **(resize or {})), output_attentions=True, output_hidden_states=True,
                **call)
    tokens = out.last_hidden_state if normed else out.hidden_states[-1]
    values = {"patches": tokens[:, prefix:], "block.1": out.hidden_states[1]}
    for k, attention in enumerate(out.attentions):
        values[f"attention.{k + 1}"] = attention
    if prefix:
        values["class"] = tokens[:, 0]
    yield weights(name + ".weights", settings, saved(model))
    yield fixture(name, images, values, {**settings, "weights": name + ".weights.safetensors"})


def transformers_encoders():
    import transformers as t

    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "intermediate_size": 4 * WIDTH,
             "patch_size": 4, "attn_implementation": "eager"}
    dinov3 = {"mode": "bilinear", "antialias": True}
    for name, more in (("encoder_dinov3", {}), ("encoder_dinov3_swiglu", {"use_gated_mlp": True, "hidden_act": "silu"})):
        config = t.DINOv3ViTConfig(**{**sizes, "image_size": 16, "num_register_tokens": 3, **more})
        yield from of_transformers(name, t.DINOv3ViTModel(config), 301, {"image": [16, 12], "registers": 3},
                                   resize=dinov3, prefix=4)
    config = t.CLIPVisionConfig(**sizes, image_size=16)
    yield from of_transformers("encoder_clip", t.CLIPVisionModel(config), 311, {"image": [16, 16]}, CLIP, normed=False)
    config = t.SiglipVisionConfig(**sizes, image_size=16, vision_use_head=False)
    yield from of_transformers("encoder_siglip", t.SiglipVisionModel(config), 321, {"image": [16, 16]}, HALF,
                               {"mode": "bilinear"}, prefix=0)
    config = t.IJepaConfig(**sizes, image_size=16)
    yield from of_transformers("encoder_ijepa", t.IJepaModel(config, add_pooling_layer=False), 331, {"image": [16, 16]},
                               prefix=0)
    config = t.ViTConfig(**sizes, image_size=16)
    yield from of_transformers("encoder_vit", t.ViTModel(config, add_pooling_layer=False), 341, {"image": [16, 16]}, HALF)
    config = t.ViTMAEConfig(**sizes, image_size=16, mask_ratio=0.0)
    order = torch.arange(16.0)[None].expand(2, -1) / 16
    yield from of_transformers("encoder_mae", t.ViTMAEModel(config), 351, {"image": [16, 16]}, normed=False, noise=order)


def sincos_rows_first(width, side):
    """MoCo v3's fixed positions: its `meshgrid` makes the first half of the width that of the rows."""
    quarter = width // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    first, second = rows.flatten()[:, None] * omega, columns.flatten()[:, None] * omega
    patches = torch.cat([first.sin(), first.cos(), second.sin(), second.cos()], 1)
    return torch.cat([torch.zeros(1, width), patches])[None]


def timm_run(model, x, count_registers=0, neurons=()):
    """timm's forward pass by hand, so that values can be taken; registers of test time at the end, as in arXiv 2506.08010."""
    values = {}
    h = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    if count_registers:
        h = torch.cat([h, h.new_zeros(h.shape[0], count_registers, h.shape[2])], 1)
    for k, block in enumerate(model.blocks):
        a = block.attn
        q, key, v = a.qkv(block.norm1(h)).reshape(*h.shape[:2], 3, a.num_heads, -1).permute(2, 0, 3, 1, 4)
        values[f"attention.{k + 1}"] = (q @ key.transpose(-1, -2) * a.scale).softmax(-1)
        h = h + block.ls1(block.attn(block.norm1(h)))
        inner = block.mlp.act(block.mlp.fc1(block.norm2(h)))
        mine = [n - 1 for b, n in neurons if b == k + 1]
        if mine:
            inner[:, -count_registers:, mine] = inner[:, :, mine].amax(1, keepdim=True)
            inner[:, 1:-count_registers, mine] = 0
        h = h + block.ls2(block.mlp.fc2(inner))
        values[f"block.{k + 1}"] = h
    return model.norm(h), values


def of_timm(name, seed, settings, statistics=IMAGENET, resize=None, change=None, run=None, **options):
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
                              **options)
    model = randomise(model, Draw(seed))
    if change:
        change(model)
    images, run, prefix = pictures(seed + 1), run or {}, model.num_prefix_tokens
    tokens, values = timm_run(model, preprocess(images, statistics, (16, 16), **(resize or {})), **run)
    added = run.get("count_registers", 0)
    values["patches"] = tokens[:, prefix:tokens.shape[1] - added]
    if prefix:
        values["class"] = tokens[:, 0]
    if added:
        values = {"patches": values["patches"], "class": values["class"]}
    else:
        assert torch.allclose(tokens, model.forward_features(preprocess(images, statistics, (16, 16), **(resize or {}))))
    state = {key: value.to(store.compute) for key, value in model.state_dict().items()}
    yield weights(name + ".weights", settings, state)
    yield fixture(name, images, values, {**settings, "weights": name + ".weights.safetensors"})


def timm_encoders():
    from timm.layers import QuickGELU

    def moco(model):
        model.pos_embed.data = sincos_rows_first(WIDTH, 4).to(store.compute)

    yield from of_timm("encoder_deit", 361, {"image": [16, 16]})
    yield from of_timm("encoder_moco", 371, {"image": [16, 16]}, change=moco)
    yield from of_timm("encoder_timm_clip", 381, {"image": [16, 16]}, CLIP, pre_norm=True, act_layer=QuickGELU)
    yield from of_timm("encoder_timm_no_class", 391, {"image": [16, 16]}, HALF, {"mode": "bilinear"},
                       class_token=False, global_pool="", act_layer="gelu_tanh")
    neurons = [[1, 3], [1, 90], [2, 50]]
    yield from of_timm("encoder_test_registers", 361, {"image": [16, 16], "neurons": neurons, "count": 2},
                       run={"count_registers": 2, "neurons": neurons})


def build():
    yield from transformers_encoders()
    yield from timm_encoders()
