"""What do XLA's compilers for TPU and GPU make of the sampler, on a machine that has neither?

For each target and case three programs are compiled, and none is run:

  gradient   one batched `value_and_grad` of the log posterior, for all chains
  step       one kernel step of all chains, as the sampler takes it
  chunk      the whole annealing program: temperatures, resampling, steps, draws

For each it prints what XLA counts: GFLOP, MB read and written, estimated cycles (TPU alone has
them), memory beside the arguments; and the step's figures over the bare gradient's. Of a chunk
it prints what devices send each other, in bytes a chain, by how many loops stand around it (0:
once a chunk, 1: at a temperature, 2: at a step), and the cycles of a step and of a temperature.
Every loop is counted once.

The compilers come in packages that need not be installed: unzip them into a folder and give
it as `--wheels`. Without the packages the script says how to get them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

# The devices, by the names that XLA has for them; a single chip is one of a slice.
TPUS = {
    "v5e": "v5e:2x2",
    "v5e:2x2": "v5e:2x2",
    "v5e:16x16": "v5e:16x16",
    "v6e": "v6e:2x2",
    "v6e:2x2": "v6e:2x2",
}
GPUS = {"h100": 1, "h100:8": 8}
PACKAGES = {
    "tpu": ("libtpu==0.0.42",),
    "cuda": (
        "jax-cuda12-pjrt==0.10.2",
        "jax-cuda12-plugin==0.10.2",
        "nvidia-cuda-nvcc-cu12",
    ),
}
# What each of them unzips to.
NEEDED = {"tpu": ("libtpu",), "cuda": ("jax_plugins", "jax_cuda12_plugin", "nvidia/cuda_nvcc")}
H100 = Path(__file__).with_name("h100_target_config.txt")
CASES = ("dcgan", "progan128", "stylegan2-1024", "linear")
GIB = 2**30
# Memory of devices, for the largest tiles.
MEMORY = (16, 32, 80)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, help="folder of the unzipped packages")
    parser.add_argument("--target", nargs="+", default=["v5e"], choices=[*TPUS, *GPUS, "cpu"])
    parser.add_argument("--case", default="dcgan", choices=CASES)
    parser.add_argument("--chains", type=int, default=256)
    parser.add_argument("--tile", type=int, help="chains in one batch; by default a device's")
    parser.add_argument("--kernel", default="mala", choices=["mala", "hmc"])
    parser.add_argument("--precision", default="highest", choices=["highest", "fast"])
    parser.add_argument("--only", nargs="+", default=["gradient", "step", "chunk"])
    parser.add_argument("--save", type=Path, help="folder for the programs' texts")
    parser.add_argument("--smoke", action="store_true", help="for this machine's CPU, small")
    return parser.parse_args()


def prepare_compilers(target: str, wheels: Path | None) -> None:
    """Set what must be set before JAX is imported, or say how to get the compiler."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAXGEN_COMPILE_CACHE"] = "off"
    if target == "cpu":
        return
    kind = "tpu" if target in TPUS else "cuda"
    if wheels is None or not all((wheels / part).is_dir() for part in NEEDED[kind]):
        names = " ".join(PACKAGES[kind])
        raise SystemExit(
            f"--wheels: expected a folder with the unzipped compiler for {target}; got {wheels}.\n"
            f"Get it with\n  pip download --no-deps -d WHEELS {names}\n"
            "  for wheel in WHEELS/*.whl; do python -m zipfile -e $wheel FOLDER; done\n"
            "and give --wheels FOLDER"
        )
    sys.path.insert(0, str(wheels))
    if kind == "tpu":
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
        os.environ["TPU_WORKER_ID"] = "0"
        os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["XLA_FLAGS"] = (
            "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false "
            f"--xla_gpu_cuda_data_dir={wheels / 'nvidia' / 'cuda_nvcc'}"
        )


def devices_of(target: str) -> list[Any]:
    """Return the target's devices, which can be compiled for but hold nothing."""
    import jax
    from jax.experimental import topologies

    if target == "cpu":
        return jax.devices()[:1]
    if target in TPUS:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=TPUS[target])
        return list(topology.devices) if ":" in target else list(topology.devices)[:1]
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=H100.read_text(), topology="1x8x1"
    )
    return list(topology.devices)[: GPUS[target]]


def path_of(case: str) -> Any:
    """Return the path of a case: a generator (shapes only, if it is large) and a condition."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxgen
    from jaxgen.models.registry import build
    from jaxgen.target.networks import freeze
    from jaxgen.target.path import likelihood_path

    if case == "linear":
        from jaxgen.posteriors.linear_gaussian import LinearGaussian

        return likelihood_path(LinearGaussian.random(8).posterior)
    if case == "dcgan":
        generator = jaxgen.load("fashion-mnist/dcgan")
        condition = jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3)
        size = 64
    else:
        # The published networks' sizes; weights are shapes alone.
        architecture, config, side = {
            "progan128": (
                "progan.ProGAN",
                {"latent": 512, "channels": (512, 512, 512, 512, 256, 128)},
                128,
            ),
            "stylegan2-1024": (
                "stylegan2.StyleGAN2",
                {
                    "latent": 512,
                    "style": 512,
                    "mapping": 8,
                    "channels": (512, 512, 512, 512, 512, 256, 128, 64, 32),
                },
                1024,
            ),
        }[case]
        generator = freeze(build(architecture, config), (512,))
        pixels = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
        mask = np.zeros((side, side, 1), np.float32)
        mask[: side // 2] = 1
        condition = jaxgen.ObservedPixels(jnp.zeros(pixels.shape), jnp.asarray(mask), 0.1)
        size = 512
    return likelihood_path(jaxgen.Posterior(jaxgen.Gaussian.standard(size), generator, condition))


def programs(args: argparse.Namespace, target: str) -> dict[str, Any]:
    """Lower the three programs; also the path, and an estimate of a chain's memory."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

    from jaxgen import adapt, kernels, schedules
    from jaxgen.sampler import iteration, program
    from jaxgen.sampler.options import ChunkOptions, Layout, Sampler, collect_nothing
    from jaxgen.sampler.shares import AXIS, share_out
    from jaxgen.sampler.state import ChunkSpec, Phase
    from jaxgen.sampler.tile import bytes_per_chain

    devices = devices_of(target)
    chains = args.chains
    tile = args.tile or -(-chains // len(devices))
    mesh = None
    whole: Any = SingleDeviceSharding(devices[0])
    parts = whole
    if len(devices) > 1:
        mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
        whole = NamedSharding(mesh, PartitionSpec())
        parts = NamedSharding(mesh, PartitionSpec(AXIS))
    path = path_of(args.case)
    kernel = kernels.MALA() if args.kernel == "mala" else kernels.HMC(10)
    rule = adapt.DualAveraging(0.1)
    schedule = schedules.Adaptive()

    def shaped(tree: Any, place: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=place), tree
        )

    def blank(path: Any, rule: Any) -> Any:
        return program.blank_state(jax.random.key(0), path, rule, num_chains=chains, num_islands=4)

    state = shaped(jax.eval_shape(blank, path, rule), whole)
    position = jax.tree.map(lambda x: x.update(sharding=parts), state.chains.position)
    data = shaped((path, kernel, rule, schedule), whole)

    def gradient(path: Any, position: Any) -> Any:
        return jax.vmap(jax.value_and_grad(lambda z: path(z, 0.5)))(position)

    def step(state: Any, path: Any, kernel: Any, rule: Any) -> Any:
        sampler = Sampler(path, kernel, rule, schedule)
        options = ChunkOptions(None, "none", collect_nothing, Layout(), 1)
        spec = ChunkSpec.of(Phase.ANNEAL, 1, 1)
        context = iteration.ChunkContext(sampler, path, spec, options, share_out(chains))
        return iteration.move(state, context)

    lowered = {}
    if "gradient" in args.only:
        lowered["gradient"] = jax.jit(gradient).lower(data[0], position)
    if "step" in args.only and mesh is None:
        lowered["step"] = jax.jit(step).lower(state, *data[:3])
    if "chunk" in args.only:
        lowered["chunk"] = program.advance.lower(
            state,
            Sampler(*data),
            ChunkSpec.of(Phase.ANNEAL, 100, 1, 0.5),
            ChunkOptions("systematic", "none", collect_nothing, Layout(tile, mesh), 100),
        )
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), position)
    estimate = jax.eval_shape(lambda p: jnp.zeros(bytes_per_chain(p, one)), path).shape[0]
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(data[0]))
    return {
        "lowered": lowered,
        "estimate": estimate,
        "weights": weights,
        "own": -(-chains // len(devices)),
        "tile": tile,
    }


def figures(name: str, compiled: Any, args: argparse.Namespace, own: int) -> dict[str, Any]:
    """Read what the compiler says of one program."""
    import hlo

    text = compiled.as_text()
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)
        (args.save / f"{name}.txt").write_text(text)
    costs = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    found = list(hlo.operations(text))
    top = [x for x in found if not x.in_fusion]
    kinds: dict[str, int] = {}
    for operation in top:
        kinds[operation.kind] = kinds.get(operation.kind, 0) + 1
    row = {
        "program": name,
        "gflop": costs.get("flops", 0) / 1e9 or None,
        "mb": costs.get("bytes accessed", 0) / 1e6 or None,
        "cycles": sum(x.cycles for x in top) or None,
        "temporary_mb": memory.temp_size_in_bytes / 1e6,
        "fusions": kinds.get("fusion", 0),
        "library_calls": kinds.get("custom-call", 0),
        "convolutions": sum(x.kind == "convolution" for x in found),
        "dots": sum(x.kind == "dot" for x in found),
        "copies": sum(kinds.get(kind, 0) for kind in ("copy", "copy-start", "transpose")),
        "loops": kinds.get("while", 0),
        "host_calls": len(hlo.host_calls(text)),
    }
    if name == "chunk":
        row["sent"] = [
            {"loops": x.loops, "what": x.kind, "bytes_a_chain": round(x.num_bytes / args.chains, 1)}
            for x in hlo.collectives(text)
        ]
        row["step_cycles"] = sum(x.cycles for x in top if x.loops >= 2) or None
        row["temperature_cycles"] = sum(x.cycles for x in top if x.loops == 1) or None
    return row


def compile_for(args: argparse.Namespace, target: str) -> dict[str, Any]:
    """Compile a case for one target: a row for each program."""
    made = programs(args, target)
    rows = []
    for name, lowered in made["lowered"].items():
        begun = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - begun
        rows.append(figures(name, compiled, args, made["own"]) | {"compile_s": round(seconds, 1)})
    bare = next((row for row in rows if row["program"] == "gradient"), None)
    step = next((row for row in rows if row["program"] == "step"), None)
    result = {"target": target, "case": args.case, "kernel": args.kernel,
              "precision": args.precision, "chains": args.chains,
              "tile": made["tile"], "rows": rows}  # fmt: skip
    if bare and step:
        result["step_over_gradient"] = {
            key: round(step[key] / bare[key], 4)
            for key in ("gflop", "mb", "cycles")
            if bare[key] and step[key]
        }
    if bare:
        each = bare["temporary_mb"] * 1e6 / made["own"]
        result["mb_per_chain"] = round(each / 1e6, 3)
        result["estimate_mb_per_chain"] = round(made["estimate"] / 1e6, 3)
        result["weights_mb"] = round(made["weights"] / 1e6, 1)
        result["largest_tile"] = {
            f"{gib} GiB": int(max(0.9 * gib * GIB - made["weights"], 0) // each) for gib in MEMORY
        }
    return result


def main() -> None:
    """Compile for each target in a process of its own, and print one JSON line."""
    args = arguments()
    if args.smoke:
        args.target, args.case, args.chains, args.tile = ["cpu"], "linear", 8, 4
    if len(args.target) > 1:
        for target in args.target:
            words = [w for w in sys.argv[1:] if w not in args.target]
            words.remove("--target")
            subprocess.run([sys.executable, __file__, *words, "--target", target], check=True)
        return
    target = args.target[0]
    prepare_compilers(target, args.wheels)
    import common

    from jaxgen.core.platform import compiling_for
    from jaxgen.core.precision import matmul_precision

    platform = "cpu" if target == "cpu" else "tpu" if target in TPUS else "gpu"
    with compiling_for(platform), matmul_precision(args.precision):
        found = compile_for(args, target)
    common.report("compiled_for", **json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
