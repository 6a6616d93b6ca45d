"""Command-line options that several commands share, and what their texts mean.

Every type here turns a text into a value or says in one line what it expected.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeAlias

from jaxgen.core.errors import InputError, expected

__all__ = [
    "Commands",
    "Parser",
    "add_models",
    "add_output",
    "add_sampling",
    "add_talk",
    "betas",
    "class_index",
    "kernel",
    "nearest",
    "noise_level",
    "step_size",
    "typed",
    "whole",
]

_MOST_TEMPERATURES = 1_000_000
_MOST_CHAINS = 1_000_000


# What was typed, program and all: a summary records it.
_TYPED: list[str] = []


def typed(words: Sequence[str] | None = None) -> list[str]:
    """Return the command line of this process; `words` sets it, as `main` does."""
    if words is not None:
        _TYPED[:] = ["jaxgen", *words]
    return list(_TYPED)


class Parser(argparse.ArgumentParser):
    """argparse, with an error of one line that `main` prints, and whole option names."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(**kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would have printed below its usage."""
        text = message.removeprefix("argument ")
        choice = re.fullmatch(r"(.*): invalid choice: (.*) \(choose from (.*)\)", text)
        if choice:
            name, got, names = choice.groups()
            text = f"{name}: expected one of {names.replace(chr(39), '')}; got {got}"
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", text)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(unknown[1], known, 1, 0.6)
            text += f". Did you mean {near[0]}?" if near else ""
        raise InputError(f"{text}{'' if text.endswith('?') else '.'} See `{self.prog} --help`")


# What `add_subparsers` returns, to which each command adds its parser.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: an integer of at least `least` (and at most `most`)."""
    wanted = (
        f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    )

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected {wanted}; got {text or 'nothing'}")
        return value

    return parse


def positive(text: str) -> float:
    """Parse a positive finite number, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number; got {text}")
    return value


def add_sampling(parser: argparse.ArgumentParser, *, chains: int = 64) -> None:
    """Options of the sampler."""
    group = parser.add_argument_group("sampler")
    group.add_argument(
        "--budget",
        choices=("quick", "standard", "paper"),
        help="settings by their price, and about how long they take on this machine, before "
        "sampling: quick, standard (the defaults) or paper (the co-generation paper's: 10 chains "
        "of 10,000 gradients); other options of this group come first",
    )
    group.add_argument(
        "--chains",
        type=whole(1, _MOST_CHAINS),
        default=chains,
        help="how many chains run side by side (default: %(default)s)",
    )
    group.add_argument(
        "--kernel",
        type=_text(kernel),
        default="hmc",
        metavar="NAME[:L]",
        help="how a chain moves: hmc[:L] (L leapfrog steps on average, else 10), mala, nuts, "
        "barker, mclmc[:L], pcn, elliptical, mh, or langevin:STEP (default: %(default)s)",
    )
    group.add_argument(
        "--betas",
        type=_text(betas),
        default="adaptive",
        metavar="SCHEDULE",
        help="inverse temperatures, from the prior (0) to the posterior (1): adaptive[:CESS], "
        "where CESS from 0 to 1 is the share of effective chains that each step keeps; sigmoid:T, "
        "linear:T or geometric:T with T temperatures; or a published list: wu2017, cogen-toy, "
        "cogen-toy-paper, cogen-images (default: %(default)s)",
    )
    group.add_argument(
        "--num-mcmc-steps",
        "--moves",
        type=whole(1),
        metavar="N",
        help="kernel steps at each temperature (default: 2 to 8, until the chains have mixed; "
        "3 with fewer than 16 chains, 1 with fewer than 8); "
        "--moves is the former name",
    )
    group.add_argument(
        "--warmup",
        type=whole(0),
        default=10,
        help="kernel steps after annealing in which the step size settles; not kept "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--steps",
        type=whole(1),
        default=20,
        help="kernel steps after the warm-up (default: %(default)s)",
    )
    group.add_argument(
        "--until",
        choices=("converged",),
        help="after --steps go on until the chains agree (R-hat at most 1.05) and there are enough "
        "draws (an effective 400) of the log density and of every pixel, at most 32 times as long; "
        "of one posterior at a time",
    )
    group.add_argument(
        "--thin",
        type=whole(1),
        default=2,
        help="keep a draw every N kernel steps (default: %(default)s)",
        metavar="N",
    )
    group.add_argument(
        "--step-size",
        type=step_size,
        default="auto",
        help="step size of the kernel, in units of the latent; auto adapts it and fixes it "
        "before the first draw (default: %(default)s)",
    )
    group.add_argument(
        "--resample",
        choices=("systematic", "stratified", "multinomial", "residual", "none"),
        default="systematic",
        help="how unlikely chains are replaced by copies of likely ones while annealing "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        help="integer that fixes all random numbers (default: %(default)s)",
    )
    group.add_argument(
        "--tile",
        type=whole(1),
        metavar="N",
        help="chains in one batch (default: as many as fit the processor's cache, or 4 GiB of an "
        "accelerator); two runs agree to the last bit if they have the same tile",
    )


def add_models(parser: Any) -> None:
    """--model, --classifier, --class, --noise and --data-dir."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="a PNG, JPEG or npy file; example:0 to example:49, which come with jaxgen; "
        "test:N of the Fashion-MNIST test set; or a folder of such files",
    )
    parser.add_argument(
        "--model",
        "--generator",
        default="fashion-mnist/gan",
        help="generator: a name or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--class",
        dest="label",
        metavar="CLASS",
        help="also condition on this class, by name or index",
    )
    parser.add_argument(
        "--classifier",
        default="fashion-mnist/classifier",
        help="classifier for --class: a name or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of the four Fashion-MNIST files, for test:N"
    )


def add_output(parser: argparse.ArgumentParser, folder: str, *, resumable: bool = True) -> None:
    """Options on where results go, how much is said, and going on after an interruption."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out",
        metavar="DIR",
        help=f"folder to write (default: runs/{folder}, or the next free number)",
    )
    group.add_argument("--force", action="store_true", help="replace the run that is in --out")
    if resumable:
        group.add_argument(
            "--resume",
            action="store_true",
            help="continue an interrupted run; give the same command and its --out",
        )
        group.add_argument(
            "--checkpoint-every",
            type=positive,
            default=60.0,
            metavar="SECONDS",
            help="seconds between checkpoints in DIR.partial (default: %(default)s)",
        )
    add_talk(group)


def add_talk(
    parser: Any, *, json: str = "print the summary as JSON", quiet: str = "show no progress"
) -> None:
    """--json and --quiet."""
    parser.add_argument("--json", action="store_true", help=json)
    parser.add_argument("--quiet", action="store_true", help=quiet)


def nearest(argument: str, value: str, names: Iterable[str]) -> InputError:
    """Return the error for a name that is not among `names`, with the nearest one."""
    names = list(names)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), folded, 1, 0.4)
    hint = f"Did you mean {folded[near[0]]!r}?" if near else ""
    return expected(argument, f"one of {', '.join(names)}", repr(value), hint)


def class_index(text: str, names: tuple[str, ...], argument: str = "--class") -> int:
    """Find a class by its index or its name (case, `-` and `_` do not matter)."""
    if text.isdecimal():
        if int(text) < len(names):
            return int(text)
        raise expected(argument, f"a class from 0 to {len(names) - 1}, or its name", text)

    def fold(name: str) -> str:
        return name.lower().replace("-", " ").replace("_", " ").replace("/", " ")

    folded = [fold(name) for name in names]
    if fold(text) in folded:
        return folded.index(fold(text))
    starts = [i for i, name in enumerate(folded) if name.startswith(fold(text)) and text]
    if len(starts) == 1:
        return starts[0]
    raise nearest(argument, text, names)


def kernel(text: str) -> Any:
    """Make a kernel from its name: `hmc`, `hmc:20`, `mala`, `langevin:0.001` ..."""
    from jaxgen import kernels

    name, _, argument = text.partition(":")
    counted = {
        "hmc": lambda n: kernels.HMC(n or 10, jitter=True),
        "nuts": lambda n: kernels.NUTS(n or 8),
        "mclmc": lambda n: kernels.AdjustedMCLMC(n or 5),
    }
    single = {
        "mala": kernels.MALA,
        "barker": kernels.Barker,
        "pcn": kernels.PreconditionedCrankNicolson,
        "elliptical": kernels.EllipticalSlice,
        "mh": kernels.RandomWalk,
    }
    if name == "langevin":
        try:
            return kernels.MALAApprox.langevin(positive(argument))
        except argparse.ArgumentTypeError as error:
            hint = "as in langevin:0.001"
            raise expected("--kernel", f"a positive step, {hint}", repr(text)) from error
    if name not in counted and name not in single:
        raise nearest("--kernel", name, [*counted, *single, "langevin:STEP"])
    if name in single:
        if argument:
            raise expected("--kernel", f"{name} without a number", repr(text))
        return single[name]()
    if not argument:
        return counted[name](None)
    try:
        return counted[name](whole(1, 10_000)(argument))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--kernel {name}: {error}") from error


def betas(text: str) -> Any:
    """Inverse temperatures by name: `adaptive`, `sigmoid:500`, `cogen-toy` ..."""
    from jaxgen.tempering import betas as schedules

    name, _, argument = text.partition(":")
    made = {
        "sigmoid": schedules.sigmoid,
        "linear": schedules.linear,
        "geometric": schedules.geometric,
    }
    published = ("wu2017", "cogen-toy", "cogen-toy-paper", "cogen-images")
    if name == "adaptive":
        if not argument:
            return schedules.Adaptive()
        try:
            fraction = float(argument)
        except ValueError:
            fraction = math.nan
        if not 0 < fraction < 1:
            raise expected("--betas adaptive", "a fraction between 0 and 1", argument)
        return schedules.Adaptive(cess=fraction)
    if name in made:
        try:
            return made[name](whole(1, _MOST_TEMPERATURES)(argument))
        except argparse.ArgumentTypeError as error:
            raise InputError(f"--betas {name}: {error}, as in {name}:500") from error
    if text in published:
        return schedules.by_name(text)
    raise nearest("--betas", text, ["adaptive", *(f"{m}:T" for m in made), *published])


def step_size(text: str) -> float | str:
    """Parse a positive number, or auto, as an argparse type."""
    return text if text == "auto" else positive(text)


def noise_level(text: str) -> float | str:
    """Parse a positive number, learn or student-t, as an argparse type."""
    if text in ("learn", "student-t"):
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        wanted = f"expected a positive number, learn or student-t; got {text}"
        raise argparse.ArgumentTypeError(wanted) from error


def _text(check: Callable[[str], Any]) -> Callable[[str], str]:
    """Return an argparse type that checks a text and keeps it, for the summary."""

    def parse(text: str) -> str:
        try:
            check(text)
        except InputError as error:  # a ValueError, which argparse would hide
            raise argparse.ArgumentTypeError(str(error).split(": ", 1)[1]) from error
        return text

    return parse
