"""How fast is the gradient that samplers need, next to PyTorch?

Value and input gradient of a log likelihood through generator and condition, float32, by

  jaxgen         inside a compiled loop (`lax.scan` of value_and_grad steps, weights as
                 arguments), as samplers run it; chains in tiles of every size asked for
  torch          the same network with the same weights, eager, NCHW and channels_last
  torch.compile  the same two, compiled

Each side is given its best tile. Three targets: the shipped 28-pixel DCGAN and its classifier,
a 64-pixel DCGAN (209 MFLOP forward) with a 3-layer CNN, both log p(class), and Progressive GAN
at 128 pixels with a squared error. The last two have random weights: their values do not
matter to the time.

JAX and torch live in processes of their own, so that neither's idle threads disturb the other,
and take turns. Values and gradients are compared first, in float64: in float32 the 13 layers of a
random Progressive GAN lose three digits of the gradient on either side. Several such pairs
of processes are started (`--processes`): either side is now and then slow for the whole of a
process's life. Figures are the least and the median time in milliseconds per chain.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import numpy as np

# Channels at 4, 8, ... pixels of the published CelebA network, and of a small one for --smoke.
PROGAN = (512, 512, 512, 512, 256, 128)
TARGETS = ("dcgan28", "dcgan64", "progan128")
CLASS = 3
SECONDS = 0.4
Weights = dict[str, np.ndarray]


# ---------------------------------------------------------------- weights that both sides read
def weights(target: str, smoke: bool) -> Weights:
    """NumPy weights of a target, kernels as jaxgen keeps them, from a fixed seed."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        fan = float(np.prod(shape[:-1]))
        return (rng.standard_normal(shape) * (2.0 / fan) ** 0.5).astype(np.float32)

    if target == "dcgan28":
        import jax

        from jaxgen.models.registry import load

        out = {}
        for name, network in (
            ("g", load("fashion-mnist/dcgan")),
            ("c", load("fashion-mnist/cnn")),
        ):
            for path, leaf in jax.tree_util.tree_leaves_with_path(network.params):
                parts = [str(getattr(p, "key", getattr(p, "name", p))) for p in path]
                parts = [p for p in parts if p not in ("value", "raw_value")]
                out[".".join([name, *parts])] = np.asarray(leaf)
        return out
    if target == "dcgan64":
        w = 4 if smoke else 64
        sizes = [8 * w, 4 * w, 2 * w, w, 3]
        out = {"g.dense.kernel": normal(64, 16 * sizes[0]), "g.dense.bias": normal(16 * sizes[0])}
        for i in range(4):
            # A stride of 2 leaves 4 of the 16 taps to each output pixel.
            out[f"g.up{i}.kernel"] = 2.0 * normal(4, 4, sizes[i], sizes[i + 1])
            out[f"g.up{i}.bias"] = 0.1 * normal(sizes[i + 1])
        sizes = [3, w // 2, w, 2 * w]
        for i in range(3):
            out[f"c.conv{i}.kernel"] = normal(4, 4, sizes[i], sizes[i + 1])
            out[f"c.conv{i}.bias"] = 0.1 * normal(sizes[i + 1])
        return out | {"c.logits.kernel": normal(64 * sizes[3], 10), "c.logits.bias": normal(10)}
    channels = progan_channels(smoke)
    out = {
        "dense.kernel": normal(channels[0], 16 * channels[0]),
        "dense.bias": 0.1 * normal(16 * channels[0]),
        "conv.kernel": normal(3, 3, channels[0], channels[0]),
        "conv.bias": 0.1 * normal(channels[0]),
    }
    for i, (a, b) in enumerate(itertools.pairwise(channels)):
        for name, inputs in (("conv0", a), ("conv1", b)):
            out[f"blocks.{i}.{name}.kernel"] = normal(3, 3, inputs, b)
            out[f"blocks.{i}.{name}.bias"] = 0.1 * normal(b)
    return out | {"rgb.kernel": normal(1, 1, channels[-1], 3), "rgb.bias": 0.1 * normal(3)}


def progan_channels(smoke: bool) -> tuple[int, ...]:
    """Channels at 4, 8, 16, ... pixels."""
    return (16, 16, 8) if smoke else PROGAN


def latent(target: str, smoke: bool) -> int:
    """Size of the latent."""
    return progan_channels(smoke)[0] if target == "progan128" else 64


# ---------------------------------------------------------------------------------- jaxgen's side
def jax_function(target: str, smoke: bool) -> tuple[Callable[[Any, Any], Any], Any]:
    """`value(params, z [D]) -> scalar` of one chain, and the parameters."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxgen import freeze
    from jaxgen.models.conv.layers import Conv, ConvTranspose
    from jaxgen.models.ported.progan import ProGAN
    from jaxgen.models.registry import load

    w = {name: jnp.asarray(value) for name, value in weights(target, smoke).items()}
    if target == "dcgan28":
        params = (load("fashion-mnist/dcgan"), load("fashion-mnist/cnn"))

        def log_class(params: Any, z: Any) -> Any:
            return jax.nn.log_softmax(params[1](params[0](z)))[CLASS]

        return log_class, params

    def fill(module: Any, prefix: str) -> Any:
        for path, leaf in nnx.to_flat_state(nnx.state(module)):
            leaf.set_value(w[".".join([prefix, *map(str, path)]).lstrip(".")])
        return module

    if target == "dcgan64":
        sizes = [w[f"g.up{i}.kernel"].shape[2:] for i in range(4)]
        seen = [w[f"c.conv{i}.kernel"].shape[2:] for i in range(3)]

        class Up(nnx.Module):
            def __init__(self) -> None:
                rngs = nnx.Rngs(0)
                self.dense = nnx.Linear(64, 16 * sizes[0][0], rngs=rngs)
                for i, (a, b) in enumerate(sizes):
                    setattr(self, f"up{i}", ConvTranspose(a, b, 4, stride=2, padding=1, rngs=rngs))

            def __call__(self, z: Any) -> Any:
                h = jax.nn.relu(self.dense(z).reshape((*z.shape[:-1], 4, 4, -1)))
                for i in range(4):
                    h = getattr(self, f"up{i}")(h)
                    h = jax.nn.relu(h) if i < 3 else 0.5 + 0.5 * jnp.tanh(h)
                return h

        class Down(nnx.Module):
            def __init__(self) -> None:
                rngs = nnx.Rngs(0)
                for i, (a, b) in enumerate(seen):
                    setattr(self, f"conv{i}", Conv(a, b, 4, stride=2, padding=1, rngs=rngs))
                self.logits = nnx.Linear(64 * seen[-1][1], 10, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                for i in range(3):
                    x = jax.nn.relu(getattr(self, f"conv{i}")(x))
                return self.logits(x.reshape((*x.shape[:-3], -1)))

        params = (freeze(fill(Up(), "g")), freeze(fill(Down(), "c")))

        def log_class_64(params: Any, z: Any) -> Any:
            return jax.nn.log_softmax(params[1](params[0](z)))[CLASS]

        return log_class_64, params
    generator = ProGAN(latent(target, smoke), progan_channels(smoke), rngs=nnx.Rngs(0))

    def squared_error(network: Any, z: Any) -> Any:
        return -0.5 * jnp.sum((network(z) - 0.5) ** 2)

    return squared_error, freeze(fill(generator, ""))


class JaxSide:
    """jaxgen's gradients: `tiles` to choose from, `run` a number of them, `check` one batch."""

    def __init__(self, target: str, smoke: bool):
        import jax

        from jaxgen.sampler.sharding import over_chains

        function, self.params = jax_function(target, smoke)

        def step(params: Any, z: Any, tile: int | None) -> Any:
            return over_chains(jax.value_and_grad(lambda x: function(params, x)), (z,), tile)

        def loop(params: Any, z: Any, count: Any, tile: int | None) -> Any:
            def body(_: int, carry: Any) -> Any:
                z, total = carry
                value, gradient = step(params, z, tile)
                return z + 1e-6 * gradient, total + value.sum()

            return jax.lax.fori_loop(0, count, body, (z, 0.0))

        self._step = jax.jit(step, static_argnums=2)
        self._loop = jax.jit(loop, static_argnums=3)
        self._block = jax.block_until_ready

    def check(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value and gradient in float64, to compare the two sides by."""
        import jax

        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: x.astype(np.float64), self.params)
            value, gradient = self._step(params, z.astype(np.float64), None)
            return np.asarray(value), np.asarray(gradient)

    def run(self, z: np.ndarray, way: str, count: int) -> float:
        """Return the seconds that `count` gradients take in one way."""
        tile = int(way)
        start = time.perf_counter()
        self._block(self._loop(self.params, z, count, None if tile >= len(z) else tile))
        return time.perf_counter() - start


# --------------------------------------------------------------------------------- torch's side
def torch_function(target: str, smoke: bool, last: bool) -> tuple[Callable[..., Any], Any]:
    """`value(weights, z [N, D]) -> [N]` of the twin, and its weights, in NCHW.

    `last` keeps images in torch's channels_last format.
    """
    import torch
    import torch.nn.functional as F

    form = torch.channels_last if last else torch.contiguous_format
    w = {}
    for name, value in weights(target, smoke).items():
        tensor = torch.from_numpy(np.array(value))
        if tensor.ndim == 4:
            up = ".up" in name or name.startswith("up")
            # jaxgen turns the taps of transposed convolutions by 180 degrees.
            tensor = (
                tensor.flip(0, 1).permute(2, 3, 0, 1) if up else tensor.permute(3, 2, 0, 1)
            ).contiguous(memory_format=form)
        elif tensor.ndim == 2:
            tensor = tensor.T.contiguous()
        w[name] = tensor

    def image(h: Any, side: int) -> Any:
        """Rows of a dense layer in NHWC order, as an image."""
        return h.reshape(len(h), side, side, -1).permute(0, 3, 1, 2).contiguous(memory_format=form)

    def layer(h: Any, w: Any, name: str, **options: Any) -> Any:
        return F.conv2d(h, w[f"{name}.kernel"], w[f"{name}.bias"], **options)

    def up(h: Any, w: Any, name: str) -> Any:
        return F.conv_transpose2d(h, w[f"{name}.kernel"], w[f"{name}.bias"], stride=2, padding=1)

    def dense(h: Any, w: Any, name: str) -> Any:
        return F.linear(h, w[f"{name}.kernel"], w[f"{name}.bias"])

    def rows(h: Any) -> Any:
        return h.permute(0, 2, 3, 1).reshape(len(h), -1)

    def dcgan28(w: Any, z: Any) -> Any:
        h = F.relu(image(dense(z, w, "g.project"), 7))
        h = 0.5 + 0.5 * torch.tanh(up(F.relu(up(h, w, "g.up1")), w, "g.up2"))
        h = (h - 0.286) / 0.353
        for i, stride in enumerate((2, 1, 2, 1)):
            h = F.gelu(layer(h, w, f"c.conv{i + 1}", stride=stride, padding=1), approximate="tanh")
        h = F.gelu(dense(rows(h), w, "c.hidden"), approximate="tanh")
        return F.log_softmax(dense(h, w, "c.logits"), -1)[:, CLASS]

    def dcgan64(w: Any, z: Any) -> Any:
        h = F.relu(image(dense(z, w, "g.dense"), 4))
        for i in range(4):
            h = up(h, w, f"g.up{i}")
            h = F.relu(h) if i < 3 else 0.5 + 0.5 * torch.tanh(h)
        for i in range(3):
            h = F.relu(layer(h, w, f"c.conv{i}", stride=2, padding=1))
        return F.log_softmax(dense(rows(h), w, "c.logits"), -1)[:, CLASS]

    def normalised(h: Any) -> Any:
        h = F.leaky_relu(h, 0.2)
        return h * torch.rsqrt((h * h).mean(1, keepdim=True) + 1e-8)

    def progan(w: Any, z: Any) -> Any:
        z = z * torch.rsqrt((z * z).mean(-1, keepdim=True) + 1e-8)
        h = normalised(image(dense(z, w, "dense"), 4))
        h = normalised(layer(h, w, "conv", padding=1))
        for i in range(len(progan_channels(smoke)) - 1):
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = normalised(layer(h, w, f"blocks.{i}.conv0", padding=1))
            h = normalised(layer(h, w, f"blocks.{i}.conv1", padding=1))
        return -0.5 * ((0.5 * layer(h, w, "rgb")) ** 2).sum((1, 2, 3))

    return {"dcgan28": dcgan28, "dcgan64": dcgan64, "progan128": progan}[target], w


class TorchSide:
    """The same for torch; a way is "nchw-16", "last-64", "compiled-nchw-64", and so on."""

    def __init__(self, target: str, smoke: bool):
        import torch

        torch.set_num_threads(2)
        self.torch, self.functions = torch, {}
        for name, last in (("nchw", False), ("last", True)):
            function, w = torch_function(target, smoke, last)
            self.functions[name] = (function, w)
            self.functions["compiled-" + name] = (torch.compile(function), w)

    def _gradient(self, name: str, z: Any) -> tuple[Any, Any]:
        function, w = self.functions[name]
        z = z.detach().requires_grad_(True)
        value = function(w, z)
        (gradient,) = self.torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    def check(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value and gradient in float64, to compare the two sides by."""
        function, w = self.functions["nchw"]
        w = {name: value.double() for name, value in w.items()}
        x = self.torch.from_numpy(z).double().requires_grad_(True)
        value = function(w, x)
        (gradient,) = self.torch.autograd.grad(value.sum(), x)
        return value.detach().numpy(), gradient.numpy()

    def run(self, z: np.ndarray, way: str, count: int) -> float:
        """Return the seconds that `count` gradients take in one way."""
        name, tile = way.rsplit("-", 1)
        x = self.torch.from_numpy(z)
        start = time.perf_counter()
        for _ in range(count):
            parts = [self._gradient(name, part)[1] for part in x.split(int(tile))]
            x = x + 1e-6 * (parts[0] if len(parts) == 1 else self.torch.cat(parts))
        return time.perf_counter() - start


# ------------------------------------------------------------------------------------ processes
def work(side: str, target: str, smoke: bool) -> None:
    """Read orders from stdin, a line of JSON each, and answer each with another: a worker."""
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = JaxSide(target, smoke) if side == "jax" else TorchSide(target, smoke)
    rng = np.random.default_rng(1)
    z = {n: rng.standard_normal((n, latent(target, smoke)), np.float32) for n in (2, 4, 16, 64)}
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "check":
            answer: Any = [a.tolist() for a in worker.check(z[2])]
        elif order["do"] == "first":
            answer = worker.run(z[order["batch"]], order["way"], 1)
        else:
            times = worker.run(z[order["batch"]], order["way"], order["count"])
            answer = times / order["count"]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """The parent's handle of a worker."""

    def __init__(self, side: str, target: str, smoke: bool):
        command = [sys.executable, __file__, "--worker", side, "--target", target]
        self.process = subprocess.Popen(
            command + ["--smoke"] * smoke, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **order: Any) -> Any:
        """Send one order and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the worker and wait until it is gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(ours: Worker, theirs: Worker) -> float:
    """Return the largest difference of values and gradients, over the largest entry."""
    worst = 0.0
    pairs = zip(ours.ask(do="check"), theirs.ask(do="check"), strict=True)
    for mine, other in pairs:
        a, b = np.asarray(mine), np.asarray(other)
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    if worst > 1e-4:
        raise SystemExit(f"the twins differ by {worst:.1e}")
    return worst


def measure(target: str, args: Any) -> list[dict[str, Any]]:
    """Return a row for each batch size."""
    kinds = ["nchw", "last"] + ["compiled-nchw", "compiled-last"] * args.compile
    times: dict[tuple[int, str, str], list[float]] = {}
    worst, compiling = 0.0, {}
    for _ in range(args.processes):
        workers = {side: Worker(side, target, args.smoke) for side in ("jax", "torch")}
        worst = max(worst, compare(workers["jax"], workers["torch"]))
        for batch in args.batches:
            tiles = sorted({min(t, batch) for t in args.tiles})
            ways = [("jax", str(t)) for t in tiles]
            # Torch is split up only where that may help: at all tiles, in either format.
            ways += [("torch", f"{k}-{t}") for k in kinds for t in tiles]
            counts = {}
            for side, way in ways:
                first = workers[side].ask(do="first", batch=batch, way=way)
                if way.startswith("compiled"):
                    compiling[way] = max(compiling.get(way, 0.0), first)
                warm = workers[side].ask(do="first", batch=batch, way=way)
                counts[side, way] = 1 if args.smoke else max(1, round(args.seconds / warm))
            for _ in range(args.rounds):
                for side, way in ways:
                    taken = workers[side].ask(
                        do="time", batch=batch, way=way, count=counts[side, way]
                    )
                    times.setdefault((batch, side, way), []).append(1e3 * taken / batch)
        for worker in workers.values():
            worker.close()
    return [row(target, batch, times, worst, compiling) for batch in args.batches]


def row(target: str, batch: int, times: Any, worst: float, compiling: Any) -> dict[str, Any]:
    """Return the best tile of each side by its least time, and the ratios."""

    def best(side: str, *starts: str) -> tuple[str, float, float]:
        found = [
            (min(t), way, float(np.median(t)))
            for (n, s, way), t in times.items()
            if (n, s) == (batch, side) and (not starts or way.startswith(starts))
        ]
        least, way, median = min(found)
        return way, least, median

    result: dict[str, Any] = {"target": target, "batch": batch, "worst_difference": worst}
    sides = {"jaxgen": ("jax",), "torch": ("torch", "nchw", "last")}
    if compiling:
        sides["torch_compile"] = ("torch", "compiled")
    for name, choice in sides.items():
        way, least, median = best(*choice)
        result[name] = {"tile": way, "min_ms": round(least, 4), "median_ms": round(median, 4)}
    for name in sides:
        if name != "jaxgen":
            for kind in ("min", "median"):
                ratio = result["jaxgen"][f"{kind}_ms"] / result[name][f"{kind}_ms"]
                result[f"over_{name}_{kind}"] = round(ratio, 3)
    if compiling:
        result["torch_compile_first_call_s"] = round(max(compiling.values()), 1)
    result["all_min_ms"] = {
        f"{side} {way}": round(min(t), 4) for (n, side, way), t in times.items() if n == batch
    }
    return result


def main() -> None:
    """Print a table and one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--worker", choices=("jax", "torch"), help="used by the script itself")
    options.add_argument("--target", choices=(*TARGETS, "all"), default="all")
    options.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    options.add_argument("--tiles", type=int, nargs="+", default=[8, 16, 32, 64])
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=SECONDS, help="of one timing")
    options.add_argument("--compile", action="store_true", help="torch.compile too (slow start)")
    args = options.parse_args()
    if args.worker:
        return work(args.worker, args.target, args.smoke)
    try:
        import torch
    except ImportError:
        return common.report("gradient", rows=[{"skipped": "torch is not installed"}])
    if args.smoke:
        args.batches, args.tiles, args.processes, args.rounds = [4], [2, 4], 1, 1
    rows = []
    for target in TARGETS if args.target == "all" else (args.target,):
        for found in measure(target, args):
            rows.append(found)
            cells = [f"{target} {found['batch']:3d}"]
            for name in ("jaxgen", "torch", "torch_compile"):
                if name in found:
                    cell = found[name]
                    cells.append(f"{name} {cell['min_ms']:.3f} ({cell['tile']})")
            cells += [f"{k} {v}" for k, v in found.items() if k.startswith("over")]
            print("  ".join(cells), file=sys.stderr, flush=True)
    return common.report("gradient", rows=rows, torch=torch.__version__, threads=2)


if __name__ == "__main__":
    main()
