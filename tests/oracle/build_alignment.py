"""attention_alignment and feature_alignment: the variants, with gradients."""

import torch

import losses
from store import Draw, Fixture


def attention_case(fixture, draw, name, student, teacher, pairs=1, prefix=0, size=1.0, edit=None):
    """student and teacher are (heads, head size, grid)."""
    (hs, ds, student_grid), (ht, dt, teacher_grid) = student, teacher
    n, m = (g[0] * g[1] for g in (student_grid, teacher_grid))
    q, k = (draw.normal(pairs, 2, hs, n, ds, scale=size) for _ in range(2))
    tq, tk = (draw.normal(pairs, 2, ht, prefix + m, dt, scale=size) for _ in range(2))
    if edit:
        edit(q, k, tq, tk)
    fixture.put_all(name + ".", {"teacher_q": tq, "teacher_k": tk, "q": q, "k": k})
    q, k = q.requires_grad_(), k.requires_grad_()
    logits = (tq @ tk.transpose(-1, -2) / dt ** 0.5)[..., prefix:, prefix:]
    resampled = [losses.resample_tokens(v, student_grid, teacher_grid) for v in (q, k)]
    loss = losses.attention_alignment(list(zip(*resampled, logits)))
    loss.backward()
    fixture.exact(name + ".loss", loss)
    fixture.put_all(name + ".", {"teacher_logits": logits, "grad_q": q.grad, "grad_k": k.grad})
    fixture.settings[name] = {"student_grid": student_grid, "teacher_grid": teacher_grid, "prefix": prefix}


def extreme(q, k, tq, tk):
    """Rows of logits that reach beyond +-200, so that log(softmax) of a small entry is minus infinity."""
    for a, b in ((q, k), (tq, tk)):
        b[..., 0] = 6.0 * (torch.arange(b.shape[-2]) % 7 - 3)
        a[..., 0] = 40.0 * (torch.arange(a.shape[-2]) % 5 - 2)


def build_attention():
    draw, fixture = Draw(401), Fixture("attention_alignment")
    square, small = (4, 4), (3, 3)
    attention_case(fixture, draw, "more_student_heads", (4, 8, square), (3, 10, square), pairs=2, prefix=3)
    attention_case(fixture, draw, "more_teacher_heads", (2, 8, square), (5, 6, square), prefix=1)
    attention_case(fixture, draw, "to_smaller_grid", (3, 8, square), (3, 8, small), pairs=2, prefix=1)
    attention_case(fixture, draw, "to_larger_grid", (2, 6, small), (2, 6, square))
    attention_case(fixture, draw, "to_another_shape", (2, 6, (3, 5)), (2, 6, square))
    attention_case(fixture, draw, "tokens_33", (2, 12, (3, 11)), (2, 5, (3, 11)))
    attention_case(fixture, draw, "tokens_1", (2, 4, (1, 1)), (2, 4, (1, 1)))
    attention_case(fixture, draw, "extreme", (2, 4, square), (2, 4, square), prefix=1, edit=extreme)
    return fixture


def feature_case(fixture, name, student, teacher):
    student = student.requires_grad_()
    loss = losses.feature_alignment(student, teacher)
    loss.backward()
    fixture.put_all(name + ".", {"student": student, "teacher": teacher, "grad": student.grad})
    fixture.exact(name + ".loss", loss)


def projected_case(fixture, draw, name, old, new):
    w = {key: v.requires_grad_() for key, v in losses.draw_projector(draw, 12, 20, 9).items()}
    hidden, teacher = draw.normal(2, old[0] * old[1], 12).requires_grad_(), draw.normal(2, new[0] * new[1], 9)
    loss = losses.feature_alignment(losses.project(w, losses.resample_tokens(hidden, old, new)), teacher)
    loss.backward()
    fixture.put_all(name + ".", {"hidden": hidden, "teacher": teacher, "grad_hidden": hidden.grad, **w})
    fixture.put_all(name + ".grad.", {key: v.grad for key, v in w.items()})
    fixture.exact(name + ".loss", loss)
    fixture.settings[name] = {"student_grid": old, "teacher_grid": new}


def build_features():
    draw, fixture = Draw(402), Fixture("feature_alignment")
    for width in (1, 31, 33, 257):
        feature_case(fixture, f"width_{width}", draw.normal(2, 5, width), draw.normal(2, 5, width))
    size = 10.0 ** torch.arange(-5, 5).view(2, 5, 1)
    feature_case(fixture, "sizes", draw.normal(2, 5, 16) * size, draw.normal(2, 5, 16) * size.flip(1))
    student, teacher = draw.normal(2, 4, 16), draw.normal(2, 4, 16)
    teacher[0, 1] = 0
    feature_case(fixture, "zero_teacher", student, teacher)
    student, teacher = draw.normal(2, 4, 16), draw.normal(2, 4, 16)
    student[1, 2] = 0
    feature_case(fixture, "zero_student", student, teacher)
    projected_case(fixture, draw, "projected", (4, 4), (4, 4))
    projected_case(fixture, draw, "to_smaller_grid", (4, 4), (3, 3))
    projected_case(fixture, draw, "to_larger_grid", (3, 5), (4, 4))
    return fixture


def build():
    yield build_attention()
    yield build_features()
