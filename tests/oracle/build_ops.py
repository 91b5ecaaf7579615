"""ops: everyday tensor operations, values and gradients, with ties, NaN, infinities, integers and nothing at all."""

import torch

import store
from store import Draw, Fixture

NAN, INF = float("nan"), float("inf")
NAMES = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int64", torch.uint8: "uint8",
         torch.bool: "uint8"}


def dtype_name(dtype):
    return "real" if dtype == store.compute else NAMES[dtype]


class Cases:
    """CASE.inK, CASE.outK and, where a gradient flows, CASE.upstreamK and CASE.gradK. settings.cases has of each its
    dtype ("real": the one that the spec computes in), its shape, and whether a gradient flows."""

    def __init__(self, fixture, draw):
        self.fixture, self.draw, self.cases = fixture, draw, {}

    def store(self, name, value):
        self.fixture.put(name, value if value.is_floating_point() else value.to(torch.int64))

    def add(self, name, function, *inputs, gradients=True):
        leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
        outputs = function(*leaves)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        flows = [gradients and y.is_floating_point() and y.requires_grad for y in outputs]
        # positive: the results of a case are much alike, and their gradients must not cancel
        upstream = [self.draw.uniform(*y.shape, low=0.5, high=1.5) if flow else None for y, flow in zip(outputs, flows)]
        if any(flows):
            torch.autograd.backward([y for y, flow in zip(outputs, flows) if flow],
                                    [g for g in upstream if g is not None])
        case = {"inputs": [], "outputs": []}
        for k, x in enumerate(leaves, 1):
            self.store(f"{name}.in{k}", x)
            case["inputs"].append([dtype_name(x.dtype), list(x.shape), x.grad is not None])
            if x.grad is not None:
                self.store(f"{name}.grad{k}", x.grad)
        for k, (y, g) in enumerate(zip(outputs, upstream), 1):
            self.store(f"{name}.out{k}", y)
            case["outputs"].append([dtype_name(y.dtype), list(y.shape), g is not None])
            if g is not None:
                self.store(f"{name}.upstream{k}", g)
        if name in self.cases:
            raise ValueError(f"two cases {name}")
        self.cases[name] = case


def real(*values):
    return torch.tensor(values).to(store.compute)


def whole(draw, low, high, *shape, dtype=torch.int64):
    return torch.randint(low, high, shape, generator=draw.generator).to(dtype)


def add_order(c, draw):
    x, ties = draw.normal(3, 4, 5), whole(draw, -3, 3, 4, 9)
    odd = torch.stack([real(3, NAN, -INF, 0.0, -0.0, INF, NAN, -1), real(1, 1, 2, 2, 1, 1, 0, 0)])
    for dim in (0, 1, -1):
        c.add(f"sort {dim}", lambda x: torch.sort(x, dim=dim, stable=True), x)
    c.add("sort descending", lambda x: torch.sort(x, dim=-1, descending=True, stable=True), x)
    for name, values in {"ties": ties, "NaN": odd, "int32": ties.to(torch.int32), "uint8": (ties + 3).to(torch.uint8),
                         "nothing": draw.normal(2, 0)}.items():
        c.add(f"sort of {name}", lambda x: torch.sort(x, stable=True), values, gradients=False)
        c.add(f"sort descending of {name}", lambda x: torch.sort(x, descending=True, stable=True), values,
              gradients=False)
    c.add("argsort", lambda x: torch.argsort(x, dim=1, stable=True), ties)
    c.add("topk", lambda x: torch.topk(x, 3), x)
    c.add("topk smallest", lambda x: torch.topk(x, 2, dim=0, largest=False), x)
    c.add("topk of int64", lambda x: torch.topk(x, 4), torch.tensor([[5, 2, 9, 1, 7], [0, 8, 3, 6, 4]]))
    c.add("median", lambda x: (torch.median(x), torch.median(x, 1).values, torch.median(x, -1, keepdim=True).values), x)
    c.add("median of NaN", lambda x: (torch.median(x), torch.median(x, 1).values, torch.median(x, 0).values), odd,
          gradients=False)
    c.add("median of int32", lambda x: (torch.median(x), torch.median(x, 1).values), ties.to(torch.int32))
    for name, values in {"int64": ties, "uint8": (ties + 3).to(torch.uint8), "NaN": odd,
                         "nothing": draw.normal(0)}.items():
        c.add(f"unique of {name}", lambda x: torch.unique(x, return_inverse=True, return_counts=True), values,
              gradients=False)
    c.add("argmax", lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True)), ties)
    c.add("argmax of NaN", lambda x: (x.argmax(), x.argmax(1), x.argmin(1)), odd)


def add_reductions(c, draw):
    x, odd = draw.normal(3, 4, 5), real([1, NAN, 2], [INF, -INF, 0], [0, 0, 0]).reshape(3, 3)
    dims = {"all": None, "1": 1, "-1": -1, "0 2": (0, 2)}
    functions = {
        "sum": lambda x, **k: x.sum(**k), "mean": lambda x, **k: x.mean(**k), "max": lambda x, **k: x.amax(**k),
        "min": lambda x, **k: x.amin(**k), "var": lambda x, **k: x.var(**k), "std": lambda x, **k: x.std(**k),
        "norm": lambda x, **k: torch.linalg.vector_norm(x, **k), "logsumexp": lambda x, **k: torch.logsumexp(x, **k),
    }
    for name, function in functions.items():
        for text, dim in dims.items():
            whole_dims = {"dim": tuple(range(x.ndim)) if dim is None else dim}
            c.add(f"{name} {text}", lambda x: (function(x, **whole_dims), function(x, keepdim=True, **whole_dims)), x)
        c.add(f"{name} of NaN", lambda x: function(x, dim=1), odd, gradients=False)
    c.add("var population", lambda x: (x.var(correction=0), x.std(1, correction=0)), x)
    c.add("var of one", lambda x: (x.var(), x.var(correction=0)), draw.normal(1), gradients=False)
    for p in (1.0, 3.0, INF, -INF, 0.0):
        c.add(f"norm of order {p}", lambda x: torch.linalg.vector_norm(x, p, dim=1), x, gradients=p != 0)
    c.add("norm of int64", lambda x: torch.linalg.vector_norm(x.to(torch.float32)), whole(draw, -9, 9, 4))
    c.add("max of ties", lambda x: (x.amax(1), x.amin(0)), real([1, 3, 3], [2, 2, 2]).reshape(2, 3))
    c.add("logsumexp of extremes", lambda x: torch.logsumexp(x, 1), real(1000, 999, -1000, -999).reshape(2, 2))
    c.add("cumsum", lambda x: (x.cumsum(0), x.cumsum(1), x.cumsum(-1)), x)
    c.add("cumsum of NaN", lambda x: x.cumsum(1), odd, gradients=False)
    c.add("cumsum of nothing", lambda x: x.cumsum(1), draw.normal(2, 0))
    c.add("cumsum of uint8", lambda x: x.cumsum(0), whole(draw, 0, 256, 9, dtype=torch.uint8))
    c.add("prod", lambda x: (x.prod(), x.prod(1), x.prod(-1, keepdim=True)), x)
    c.add("prod with zeros", lambda x: x.prod(1), real([2, 0, 3], [0, 0, 4], [1, 2, 3]).reshape(3, 3))
    c.add("prod of NaN", lambda x: x.prod(1), odd, gradients=False)
    c.add("prod of nothing", lambda x: (x.prod(), x.prod(1)), draw.normal(2, 0))
    c.add("prod of int32", lambda x: (x.prod(), x.prod(0)), whole(draw, 1, 4, 3, 4, dtype=torch.int32))
    c.add("any all", lambda x: (x.any(), x.all(), x.any(1), x.all(0, keepdim=True)), whole(draw, 0, 2, 3, 4))
    c.add("any all of NaN", lambda x: (x.any(1), x.all(1)), odd)
    c.add("any all of nothing", lambda x: (x.any(), x.all(), x.any(0)), draw.normal(0, 2))
    c.add("sum of integers", lambda x, y: (x.sum(), y.sum(0)), whole(draw, -9, 9, 3, 4, dtype=torch.int32),
          whole(draw, 0, 256, 300, 2, dtype=torch.uint8))


def add_elementwise(c, draw):
    edges = real(-INF, -2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, INF, NAN)
    functions = {
        "abs": torch.abs, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
        "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "erf": torch.erf,
        "sign": torch.sign, "floor": torch.floor, "round": torch.round, "reciprocal": torch.reciprocal,
        "square": torch.square, "atan": torch.atan, "neg": torch.neg,
    }
    for name, function in functions.items():
        positive = name in ("log", "sqrt", "rsqrt")
        c.add(name, function, draw.uniform(3, 5, low=0.1, high=3) if positive else draw.normal(3, 5, scale=1.5))
        some = edges[:-1] if name == "sign" else edges  # PyTorch's sign(NaN) is 0
        c.add(f"{name} at edges", function, some, gradients=False)
    a, b = draw.normal(3, 1, 4), draw.normal(2, 4)
    b = torch.where(b.abs() < 0.2, b + 1, b)
    pairs = {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
        "minimum": torch.minimum, "remainder": torch.remainder,
    }
    for name, function in pairs.items():
        c.add(name, function, a, b)
    c.add("pow", torch.pow, a.abs() + 0.1, b)
    c.add("floor_divide", lambda a, b: torch.floor_divide(a.detach(), b.detach()), a, b)
    grid = real(-INF, -7.5, -2, -0.0, 0.0, 1, 7.5, INF, NAN)
    compared = {"maximum": torch.maximum, "minimum": torch.minimum, "remainder": torch.remainder, "eq": torch.eq,
                "floor_divide": torch.floor_divide, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
                "ge": torch.ge}
    for name, function in compared.items():
        c.add(f"{name} at edges", lambda a, b: function(a[:, None], b), grid, grid, gradients=False)
    for dtype in (torch.int32, torch.int64):
        u, v = whole(draw, -20, 20, 4, 6, dtype=dtype), torch.tensor([1, 2, -3, 7, -8, -1]).to(dtype)
        c.add(f"remainder of {NAMES[dtype]}", lambda u, v: (u % v, u % 3, u % -3, 20 % v), u, v)
        c.add(f"floor_divide of {NAMES[dtype]}", lambda u, v: (u // v, u // 3, u // -3, 20 // v), u, v)
    c.add("remainder of numbers", lambda x: (x % 1.5, x % -1.5, torch.remainder(torch.full_like(x, 3), x + 10)),
          draw.normal(7, scale=4))
    c.add("clamp", lambda x: (x.clamp(-1, 1), x.clamp(min=0), x.clamp(max=0.5)), draw.normal(3, 4))
    c.add("clamp at edges", lambda x: x.clamp(-1, 1), edges, gradients=False)
    c.add("where", lambda m, a, b: torch.where(m != 0, a, b), whole(draw, 0, 2, 3, 1, 4), a, b)
    c.add("masked_fill", lambda x, m: x.masked_fill(m != 0, -INF).softmax(-1), draw.normal(3, 4),
          torch.tensor([1, 0, 0, 1]))
    c.add("masked_select", lambda x, m: x.masked_select(m != 0), draw.normal(3, 4), torch.tensor([1, 0, 0, 1]),
          gradients=False)
    c.add("nonzero", lambda x: (x.nonzero(), (x > 5).nonzero()), whole(draw, 0, 3, 3, 4))
    c.add("isnan isinf isfinite", lambda x: (x.isnan(), x.isinf(), x.isfinite()), edges)
    c.add("logical", lambda a, b: (torch.logical_and(a, b), torch.logical_or(a, b), torch.logical_not(a)),
          whole(draw, 0, 3, 4, 5), whole(draw, 0, 3, 5))


def add_layout(c, draw):
    x, y = draw.normal(3, 4, 5), draw.normal(4, 2)
    c.add("concat stack", lambda a, b: (torch.cat([a, b, a], 1), torch.stack([a, b], -1)), draw.normal(2, 3),
          draw.normal(2, 3))
    c.add("split chunk unbind", lambda x: (*x.split(3, 2), *x.split([1, 3], 1), *x.chunk(2, 1), *x.unbind(1)), x)
    c.add("permute transpose", lambda x: (x.permute(2, 0, 1), x.transpose(-1, 0), x[0].T), x)
    c.add("reshape expand", lambda x: (x.reshape(-1, 10), x.flatten(1), x[:, :1].expand(-1, 3, -1)), x)
    c.add("tile", lambda x: (x.repeat(2, 3), x.tile(2), x.repeat(2, 1, 2)), y)
    c.add("tile zero times", lambda x: x.repeat(0, 2), y)
    c.add("roll", lambda x: (x.roll(1, 0), x.roll(-2, -1), x.roll((1, 2), (0, 1)), x.roll(3)), y)
    c.add("flip", lambda x: (x.flip(0), x.flip(0, 2)), x)
    for k in (0, 1, -2):
        c.add(f"tril triu {k}", lambda x: (x.tril(k), x.triu(k)), x)
    c.add("diagonal", lambda x: (x.diagonal(dim1=-2, dim2=-1), x.diagonal(dim1=0, dim2=2)), x)
    c.add("index", lambda x: (x[0], x[-1, 1:3], x[:, ::2, 4], x[1, 2, 3]), x)
    index = torch.tensor([2, 0, 0, 1])
    c.add("index by tensors", lambda x, i: (x[i], x.index_select(1, i), x[1][i]), x, index)
    c.add("index by mask", lambda x, m: x[m != 0], x, torch.tensor([1, 0, 1]), gradients=False)
    c.add("gather", lambda x, i: x.gather(1, i), y, torch.tensor([[0], [1], [1], [0]]))
    c.add("scatter_add", lambda x, i, s: x.scatter_add(0, i, s), y, torch.tensor([[0, 3], [0, 1]]), draw.normal(2, 2))
    c.add("one_hot", lambda i: (torch.nn.functional.one_hot(i), torch.nn.functional.one_hot(i, 5)),
          torch.tensor([[2, 0], [1, 2]]))


def add_products(c, draw):
    a, b, v, w = draw.normal(2, 3, 4), draw.normal(2, 4, 5), draw.normal(4), draw.normal(4)
    c.add("matmul", lambda a, b: (a @ b, a[0] @ b, a @ b[1]), a, b)
    c.add("matmul of vectors", lambda a, v, w: (a[0].mv(v), v.dot(w), torch.outer(v, w)), a, v, w)
    two = {"ij,jk->ik": ((3, 4), (4, 5)), "bij,bjk->bki": ((2, 3, 4), (2, 4, 5)), "i,j": ((3,), (4,)),
           "bhnd,bhmd->bhnm": ((2, 2, 3, 4), (2, 2, 5, 4)), "ij,ij->": ((3, 4), (3, 4)), "...i,i": ((2, 3, 4), (4,)),
           "abc,bad->cd": ((2, 3, 4), (3, 2, 5))}
    for equation, (first, second) in two.items():
        c.add(f"einsum {equation}", lambda x, y: torch.einsum(equation, x, y), draw.normal(*first),
              draw.normal(*second))
    for equation in ("ii->i", "ii", "ba", "ij->j"):
        c.add(f"einsum {equation}", lambda x: torch.einsum(equation, x), draw.normal(4, 4))


def promotions():
    """The dtype of a + b and of a / b, for tensors and where b has no dimensions ("scalar")."""
    dtypes, table = {**{v: k for k, v in NAMES.items() if k != torch.bool}, "float64": torch.float64,
                     "bfloat16": torch.bfloat16}, {}
    names = {v: k for k, v in dtypes.items()}
    for a, first in dtypes.items():
        for b, second in dtypes.items():
            x, y = torch.ones(2, dtype=first), torch.ones(2, dtype=second)
            table[f"{a} {b}"] = [names[(x + y).dtype], names[(x / y).dtype]]
            table[f"{a} {b} scalar"] = [names[(x + y[0]).dtype], names[(x / y[0]).dtype]]
    return table


def build():
    draw = Draw(601)
    fixture = Fixture("ops")
    c = Cases(fixture, draw)
    for add in (add_order, add_reductions, add_elementwise, add_layout, add_products):
        add(c, draw)
    fixture.settings = {"cases": c.cases, "promotions": promotions()}
    yield fixture
