"""What the sampling commands share: load models, sample one posterior, save, print."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.cli import options as texts
from jaxgen.cli.budget import announced, preset
from jaxgen.cli.progress import Reporter
from jaxgen.cli.words import in_flags
from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import Condition
from jaxgen.kernels import ChainState
from jaxgen.models.registry import ModelInfo, describe
from jaxgen.report import output_folder
from jaxgen.sampler.finished import arrays_of, figures_of, surroundings
from jaxgen.sampler.results import SampleResult
from jaxgen.target.networks import Network
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior

__all__ = [
    "Finished",
    "Model",
    "Settings",
    "class_key",
    "draws",
    "identity",
    "image_shape",
    "kept",
    "label_array",
    "load",
    "out_folder",
    "place",
    "posterior",
    "print_results",
    "run",
    "save",
    "summary",
    "with_judge_agreement",
]


class Model(NamedTuple):
    """A loaded network and what it is."""

    network: Network
    info: ModelInfo


@dataclass(frozen=True)
class Settings:
    """The sampler's settings, as the command line has them."""

    chains: int = 64
    kernel: str = "hmc"
    betas: str = "adaptive"
    num_mcmc_steps: int | None = None
    warmup: int = 10
    steps: int = 20
    thin: int = 2
    step_size: float | str = "auto"
    resample: str = "systematic"
    seed: int = 0
    tile: int | None = None
    checkpoint_every: float = 60.0
    until: str | None = None
    budget: str | None = None

    @classmethod
    def of(cls, options: Namespace) -> Settings:
        """Return the settings of parsed options; raise `InputError` if `thin` exceeds `steps`."""
        presets = preset(options.budget, texts.typed())
        options = Namespace(**{**vars(options), **presets})
        if options.thin > options.steps:
            raise expected("--thin", f"at most --steps, {options.steps}", options.thin)
        return cls(**{name: getattr(options, name) for name in cls.__dataclass_fields__})

    def arguments(self) -> dict[str, Any]:
        """Return what `jaxgen.sample` takes of them, kernel and key excepted."""
        return {
            "num_chains": self.chains,
            "num_steps": self.steps,
            "thin": self.thin,
            "warmup": self.warmup,
            # By its name it is the same setting in every call, and compiles once.
            "betas": self.betas if self.betas == "adaptive" else texts.betas(self.betas),
            "num_mcmc_steps": self.num_mcmc_steps,
            "step_size": None if self.step_size == "auto" else self.step_size,
            "resample": None if self.resample == "none" else self.resample,
            "collect": kept,
            "tile": self.tile,
        }


@dataclass(frozen=True)
class Finished:
    """One sampled posterior.

    Attributes:
      name: short and unique in its command: it names arrays in files.
      label: for tables and pictures.
      result: from `jaxgen.sample`, with positions and images as draws.
      seconds: wall time, compiling included.
      facts: what else belongs into the summary.
    """

    name: str
    label: str
    result: SampleResult
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


def load(name: str, kind: str, argument: str) -> Model:
    """Load a model of a kind ("generator", "classifier"), or raise `InputError`."""
    info = describe(name)
    if info.kind != kind:
        raise expected(argument, f"a {kind}", f"{name}, a {info.kind}", "See `jaxgen models`")
    return Model(jaxgen.load(name), info)


def image_shape(generator: Model) -> tuple[int, int, int]:
    """Height, width and channels of what a generator makes."""
    shape = generator.info.output_shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise expected("--model", "a generator of images", f"{generator.info.name}: {list(shape)}")
    return shape


def posterior(generator: Model, condition: Condition) -> Posterior:
    """Compose a standard normal prior of the generator's latent shape, and a condition."""
    return Posterior(
        jaxgen.Gaussian.standard(generator.info.input_shape), generator.network, condition
    )


def kept(path: AnnealedPath, chain: ChainState) -> dict[str, Any]:
    """Keep a draw's coordinates, its image, and log p(z) + log p(condition | G(z)).

    The chain carries both halves of the log density: it costs nothing.
    """
    return {**jaxgen.images(path, chain), "log_density": chain.base + chain.tilt}


def place(out: Path, name: str) -> Path:
    """Return the folder that keeps a run until the command has written everything to `out`."""
    return output_folder.partial(out) / name


def run(
    key: Any,
    target: Posterior,
    settings: Settings,
    reporter: Reporter,
    name: str,
    label: str,
    out: Path,
) -> Finished:
    """Sample one posterior with the settings of a command line.

    The run lives in `place(out, name)`.
    """
    begun = time.monotonic()
    if settings.budget is not None and reporter.mode != "quiet":
        print(announced(target, settings), file=sys.stderr, flush=True)
    reporter.start(label)
    result = jaxgen.sample(
        key,
        target,
        texts.kernel(settings.kernel),
        **settings.arguments() | {"betas": texts.betas(settings.betas)},
        progress=reporter.update,
        until=settings.until,
        folder=place(out, name),
        resume=True,
        checkpoint_every=settings.checkpoint_every,
    )
    jax.block_until_ready(result.position)
    return Finished(name, label, result, time.monotonic() - begun)


def draws(done: Finished) -> tuple[np.ndarray, np.ndarray]:
    """All draws as one sample: images `[C * S, H, W, channels]`, weights `[C * S]`."""
    images = done.result.draws["image"]
    count = images.shape[1]
    weights = np.repeat(np.asarray(done.result.weights, np.float64) / count, count)
    return images.reshape(-1, *images.shape[2:]), weights / weights.sum()


def with_judge_agreement(
    finished: Sequence[Finished], labels: Sequence[int], names: Any
) -> list[Finished]:
    """Add the share of draws that the judge gives their class, where it knows the classes.

    The judge is another classifier than the one conditioned on, of another architecture and
    seed. Without its weights, or for other classes, nothing is added.
    """
    try:
        judge = load("fashion-mnist/judge", "classifier", "judge")
    except InputError:  # not installed
        return list(finished)
    shape = finished[0].result.draws["image"].shape[2:]
    known = judge.info.classes
    if tuple(names[: len(known)]) != known or judge.info.input_shape != shape:
        return list(finished)
    classify = jax.jit(lambda network, images: jnp.argmax(jax.vmap(network)(images), axis=-1))
    result = []
    for done, label in zip(finished, labels, strict=True):
        if label >= len(known):  # "none of these", which the judge does not know
            result.append(done)
            continue
        images, weights = draws(done)
        right = np.asarray(classify(judge.network, jnp.asarray(images))) == label
        facts = {**done.facts, "judge_agreement": float(np.dot(weights, right))}
        result.append(dataclasses.replace(done, facts=facts))
    return result


def figures(done: Finished) -> dict[str, Any]:
    """Return a posterior's entry in the summary."""
    return figures_of(done.result, done.name, done.label, done.seconds, done.facts)


def summary(
    command: str,
    arguments: Mapping[str, Any],
    models: Sequence[Model],
    finished: Sequence[Finished],
    **more: Any,
) -> dict[str, Any]:
    """Everything that is needed to know what a run was, and to repeat it."""
    entries = [figures(done) for done in finished]
    return {
        "format": output_folder.FORMAT,
        "command": command,
        "arguments": {k: v for k, v in arguments.items() if k != "run"},
        **more,
        "models": [identity(model.info) for model in models],
        "runs": entries,
        "seconds": round(sum(entry["seconds"] for entry in entries), 2),
        "gradients": sum(entry["gradients"] for entry in entries),
        **surroundings(texts.typed()),
    }


def out_folder(options: Namespace, stem: str) -> Path:
    """Reserve the folder for the results, or raise `InputError` before anything is computed.

    So it is where an interrupted run waits beside it, unless --resume goes on with that
    one, or --force gives it up; and where another command is writing. The name is this
    process's own until the command ends.
    """
    resume = getattr(options, "resume", False)
    if options.out is None:
        if options.force:
            raise expected("--force", "an --out folder to replace", "none")
        if resume:
            raise expected("--resume", "the --out folder of the interrupted run", "none")
        return output_folder.reserve_free("runs", stem)
    path = _shown(local_folder(options.out, "--out"))
    if resume and path.exists():
        raise expected("--resume", "a run that was interrupted", f"{path}, which is complete")
    output_folder.reserve(path, resume=resume, force=options.force)
    return path


def _shown(path: Path) -> Path:
    """Return a path relative to the current directory where it lies below, else as it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


def save(
    path: Path,
    data: dict[str, Any],
    finished: Sequence[Finished],
    pictures: Mapping[str, Any],
    *,
    force: bool,
    more: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Write pictures, draws and summary as one folder; returns the summary as written."""
    arrays: dict[str, np.ndarray] = dict(more or {})
    for done in finished:
        arrays |= arrays_of(done.name, done.result)
    data = {**data, "files": [*pictures, "draws.safetensors", "summary.json"]}
    shapes = "position [chains, draws, ...], image [chains, draws, H, W, channels] in [0, 1], "
    shapes += "log_density [chains, draws]"
    with output_folder.writing(path, force=force) as place:
        for name, picture in pictures.items():
            output_folder.write_picture(place / name, picture)
        output_folder.write_arrays(place / "draws.safetensors", arrays, {"arrays": shapes})
        output_folder.write_json(place / "summary.json", data)
    shutil.rmtree(output_folder.partial(path), ignore_errors=True)
    return data


def print_results(data: dict[str, Any], path: Path, *, as_json: bool) -> None:
    """Print the summary on stdout: a table and the folder, or JSON."""
    if as_json:
        print(json.dumps(output_folder.plain({**data, "folder": path}), indent=2, allow_nan=False))
        return
    print_table(data["runs"])
    print(
        f"{data['gradients']:,} gradients of one image, {data['seconds']:.1f} s "
        f"(compiling included)\n{path}: {', '.join(data['files'])}"
    )


def print_table(entries: Sequence[Mapping[str, Any]]) -> None:
    """Figures of posteriors as a table, and their notes below it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    if not sys.stdout.isatty():
        console.width = 140
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = {"posterior": "left", "log Z": "right", "ESS": "right", "acceptance": "right"}
    columns |= {"gradients": "right", "divergent": "right", "s": "right", "label": "left"}
    extra = {"judge": "judge_agreement", "hidden MSE": "hidden_mse", "MSE": "mse"}
    extra = {k: v for k, v in extra.items() if any(v in entry for entry in entries)}
    for name, justify in columns.items():
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name in extra:
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        evidence = f"{entry['log_z']:.2f} ± {entry['log_z_standard_error']:.2f}"
        table.add_row(
            str(entry["label"]),
            evidence,
            f"{entry['ess']:.1f}/{entry['num_chains']}",
            f"{entry['acceptance_rate']:.2f}",
            f"{entry['gradients_per_chain']:.0f} x {entry['num_chains']}",
            str(entry["num_divergent"]),
            f"{entry['seconds']:.1f}",
            entry["exactness"],
            *(f"{entry[key]:.3f}" if key in entry else "" for key in extra.values()),
        )
    console.print(table)
    for entry in entries:
        for note in entry["notes"]:
            words = in_flags(note)
            console.print(f"note: {entry['label']}: {words}", style="yellow", highlight=False)


def class_key(key: Any, label: int) -> Any:
    """Return a class's own key: its draws are the same, sampled alone or among others."""
    return jax.random.fold_in(key, label)


def label_array(label: int) -> Any:
    """Return a class label as data, so that another one compiles nothing."""
    return jnp.asarray(label, jnp.int32)


def identity(info: ModelInfo) -> dict[str, Any]:
    """Return what a summary says of a network."""
    return {
        "name": info.name,
        "kind": info.kind,
        "sha256": info.metadata["sha256"],
        "parameters": info.size,
        "licence": info.metadata.get("licence"),
    }
