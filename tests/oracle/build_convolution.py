"""convolution: images by banks of kernels, with gradients; the sizes, strides and paddings of a decoder and its encoder."""

import torch.nn.functional as F

from build_basics import differentiate
from store import Draw, Fixture

# name: x, weight, stride, (top, bottom, left, right)
CASES = {
    "3x3": ((2, 5, 9, 7), (6, 5, 3, 3), 1, (1, 1, 1, 1)),
    "1x1": ((2, 6, 5, 4), (3, 6, 1, 1), 1, (0, 0, 0, 0)),
    "downsample": ((2, 4, 8, 10), (4, 4, 3, 3), 2, (0, 1, 0, 1)),
    "even": ((1, 3, 11, 13), (2, 3, 4, 2), 3, (2, 1, 0, 3)),
}


def convolve(stride, padding):
    top, bottom, left, right = padding
    return lambda x, weight, bias: F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride=stride)


def build():
    draw, fixture = Draw(701), Fixture("convolution", cases={
        name: {"stride": stride, "padding": padding} for name, (_, _, stride, padding) in CASES.items()})
    for name, (x, weight, stride, padding) in CASES.items():
        differentiate(fixture, name, convolve(stride, padding), draw, x=draw.normal(*x), weight=draw.normal(*weight),
                      bias=draw.normal(weight[0]))
    yield fixture
