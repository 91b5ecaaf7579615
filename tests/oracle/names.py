"""Manifests of tensor names and shapes of the published 256px checkpoints, as text."""

NOTE = """\
# {title}: names and shapes of the state dict (REPA / HASTE naming; 256px: latents 4x32x32, 1000 classes + null).
# pos_embed is fixed, the rest is trained. Official SiT releases have no projectors and a learned sigma: there
# final_layer.linear.weight is {learned}x{width} and final_layer.linear.bias {learned}, and channels 0-3 of the 8 are the velocity.
"""


def manifest(width, depth, patch=2, side=32, channels=4, classes=1000, hidden=2048, teacher=768, frequencies=256):
    yield "pos_embed", (1, (side // patch) ** 2, width)

    def linear(name, rows, columns):
        yield name + ".weight", (rows, columns)
        yield name + ".bias", (rows,)

    yield "x_embedder.proj.weight", (width, channels, patch, patch)
    yield "x_embedder.proj.bias", (width,)
    yield from linear("t_embedder.mlp.0", width, frequencies)
    yield from linear("t_embedder.mlp.2", width, width)
    yield "y_embedder.embedding_table.weight", (classes + 1, width)
    for i in range(depth):
        yield from linear(f"blocks.{i}.attn.qkv", 3 * width, width)
        yield from linear(f"blocks.{i}.attn.proj", width, width)
        yield from linear(f"blocks.{i}.mlp.fc1", 4 * width, width)
        yield from linear(f"blocks.{i}.mlp.fc2", width, 4 * width)
        yield from linear(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
    yield from linear("projectors.0.0", hidden, width)
    yield from linear("projectors.0.2", hidden, hidden)
    yield from linear("projectors.0.4", teacher, hidden)
    yield from linear("final_layer.linear", patch ** 2 * channels, width)
    yield from linear("final_layer.adaLN_modulation.1", 2 * width, width)


def text(title, width, depth):
    lines = [f"{name}\t{'x'.join(map(str, shape))}" for name, shape in manifest(width, depth)]
    return NOTE.format(title=title, width=width, learned=32) + "\n".join(lines) + "\n"


FILES = {"sit_xl_2.names": ("SiT-XL/2", 1152, 28), "sit_b_2.names": ("SiT-B/2", 768, 12)}
