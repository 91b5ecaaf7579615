"""What the public code of HASTE does, in our own words: modules as in timm, every block's attention map stored, twice as many
maps kept as are aligned, log(softmax), an EMA parameter by parameter, four numbers read by the host at every step, and a teacher
and projector that go on after the alignment has ended."""

from collections import OrderedDict

import torch
from torch import nn

import sit


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        """The result, and the logits [B,H,N,N]."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)), logits


class Mlp(nn.Module):
    def __init__(self, width, approximate):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(approximate=approximate), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def modulate(x, shift, scale):
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(width, heads), Mlp(width, "tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        m = self.adaLN_modulation(c).chunk(6, dim=-1)
        attended, logits = self.attn(modulate(self.norm1(x), m[0], m[1]))
        x = x + m[2].unsqueeze(1) * attended
        return x + m[5].unsqueeze(1) * self.mlp(modulate(self.norm2(x), m[3], m[4])), logits


class Final(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))


class Patches(nn.Module):
    def __init__(self, channels, patch, width):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Student(nn.Module):
    """SiT with its projector, `kept` the blocks (from 1) whose logits are returned."""

    def __init__(self, c, positions, feature_block, projector, kept):
        super().__init__()
        self.c, self.feature_block, self.kept = c, feature_block, kept
        self.register_buffer("pos_embed", positions)
        self.x_embedder = Patches(c.channels, c.patch, c.width)
        self.t_embedder = nn.Module()
        self.t_embedder.mlp = nn.Sequential(nn.Linear(2 * c.frequencies, c.width), nn.SiLU(), nn.Linear(c.width, c.width))
        self.y_embedder = nn.Module()
        self.y_embedder.embedding_table = nn.Embedding(c.classes + 1, c.width)
        self.blocks = nn.ModuleList(Block(c.width, c.heads) for _ in range(c.depth))
        self.final_layer = Final(c.width, c.patch ** 2 * c.channels)
        if projector:
            hidden, out = projector
            self.projectors = nn.ModuleList([nn.Sequential(nn.Linear(c.width, hidden), nn.SiLU(), nn.Linear(hidden, hidden),
                                                           nn.SiLU(), nn.Linear(hidden, out))])

    def forward(self, x, t, y):
        c, projected, maps = self.c, None, []
        h = self.x_embedder(x) + self.pos_embed
        conditioning = self.t_embedder.mlp(sit.time_features(t, c.frequencies)) + self.y_embedder.embedding_table(y)
        for number, block in enumerate(self.blocks, 1):
            h, logits = block(h, conditioning)
            if number in self.kept:
                maps.append(logits)
            if number == self.feature_block and hasattr(self, "projectors"):
                projected = self.projectors[0](h)
        out = self.final_layer(h, conditioning)
        rows, columns = c.grid
        out = out.reshape(-1, rows, columns, c.patch, c.patch, c.channels)
        return torch.einsum("nhwpqc->nchpwq", out).reshape(x.shape), projected, maps


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class TeacherBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(c.width, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(c.width, c.heads), Mlp(c.width, "none")
        self.ls1, self.ls2 = (LayerScale(c.width) if c.layerscale else nn.Identity() for _ in range(2))

    def forward(self, x):
        attended, logits = self.attn(self.norm1(x))
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x))), logits


class Teacher(nn.Module):
    def __init__(self, c, kept):
        super().__init__()
        self.c, self.kept = c, kept
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid ** 2, c.width))
        self.patch_embed = Patches(3, c.patch, c.width)
        self.blocks = nn.ModuleList(TeacherBlock(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def forward(self, pictures):
        x, maps = self.patch_embed(pictures), []
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for number, block in enumerate(self.blocks, 1):
            x, logits = block(x)
            if number in self.kept:
                maps.append(logits)
        return self.norm(x)[:, 1:], maps


def twice(layers, depth):
    """The aligned layers and as many more, as the public code keeps eight maps where it uses four."""
    more = [n for n in range(depth, 0, -1) if n not in layers][:len(layers)]
    return sorted(layers + more)


def load(module, weights):
    missing, unknown = module.load_state_dict(weights, strict=False)
    if unknown or set(missing) - {"pos_embed"}:
        raise SystemExit(f"weights: missing {missing}, unknown {unknown}")


class Public:
    def __init__(self, task):
        self.task = task
        c, t = task.student, task.teacher
        if t.registers:
            raise SystemExit("the public peer has no register tokens")
        self.taught = task.mode != "denoise"
        self.student_kept, self.teacher_kept = (twice(list(layers), depth) for layers, depth in
                                                zip(zip(*task.pairs), (c.depth, t.depth)))
        w = {**task.student_weights, **(task.projector_weights if self.taught else {})}
        hidden = task.projector_weights["projectors.0.0.weight"].shape[0]
        self.student = Student(c, task.positions, task.feature_block, (hidden, t.width) if self.taught else None,
                               self.student_kept).to(task.device)
        load(self.student, w)
        self.parameters = dict(self.student.named_parameters())
        self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.optimizer = task.adamw(self.student.parameters())
        self.metrics = {}
        if self.taught:
            self.teacher = Teacher(t, self.teacher_kept).to(task.device).eval()
            load(self.teacher, {n: v for n, v in task.teacher_weights.items() if n != "mask_token"})
            mean, deviation = (torch.tensor(v, device=task.device).view(1, 3, 1, 1) for v in t.statistics)
            self.mean, self.deviation = mean, deviation

    def teach(self, images):
        size = self.task.teacher.image
        x = (self.task.pixels(images) - self.mean) / self.deviation
        with torch.no_grad():
            return self.teacher(nn.functional.interpolate(x, (size, size), mode="bicubic"))

    def align_features(self, projected, patches):
        """Image by image, as REPA does it."""
        loss = 0.0
        for mine, theirs in zip(projected, patches):
            mine, theirs = nn.functional.normalize(mine, dim=-1), nn.functional.normalize(theirs, dim=-1)
            loss = loss + (-(mine * theirs).sum(-1)).mean()
        return loss / len(projected)

    def align_attention(self, maps, teacher_maps):
        loss, c = 0.0, self.task.teacher
        for s, t in self.task.pairs:
            mine, theirs = maps[self.student_kept.index(s)], teacher_maps[self.teacher_kept.index(t)]
            heads = min(mine.shape[1], c.heads)
            theirs = theirs[:, :heads, 1:, 1:].softmax(-1)
            loss = loss - (theirs * torch.log(mine[:, :heads].softmax(-1))).sum(-1).mean()
        return loss / len(self.task.pairs)

    def gradients(self, x0, noise, t, y, images):
        with torch.autocast(self.task.device, torch.bfloat16, enabled=self.task.precision == "bf16"):
            patches, teacher_maps = self.teach(images) if self.taught else (None, None)
            x_t, target = self.task.interpolate(x0, noise, t)
            velocity, projected, maps = self.student(x_t, t, y)
            values = {"denoise": ((velocity - target) ** 2).flatten(1).mean(1).mean()}
            if "features" in self.task.losses:
                values["features"] = self.align_features(projected, patches)
            if "attention" in self.task.losses:
                values["attention"] = self.align_attention(maps, teacher_maps)
        total = self.task.total(values)
        total.backward()
        self.metrics = {name: value.item() for name, value in values.items()}
        return values

    def update(self):
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), self.task.config["optimizer"]["clip"])
        self.metrics["gradient_norm"] = norm.item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            decay, parameters = self.task.config["ema"], OrderedDict(self.student.named_parameters())
            for name, average in self.ema.items():
                average.mul_(decay).add_(parameters[name].data, alpha=1 - decay)

    def step(self):
        x0, images, y = self.task.batch()
        self.gradients(x0, *self.task.draw(x0, y), images)
        self.update()
