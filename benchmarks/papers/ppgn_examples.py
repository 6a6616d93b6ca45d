"""What else Plug & Play networks do: from a real image, from class to class, units, inpainting.

Joint PPGN-h on Fashion-MNIST with noise that a step feels (epsilon 3 of 0.3; mean |d| is about
as large), epsilon 1 of 0.1, the log probability's gradient and steps of 0.3 of the mean code.
Without noise, or with the generator trained without it, chains get stuck where the classifier
is content and the judge is not. Chains of one class end with steps a tenth as long. Rows:

- from a real image: the first is real, the next G(E(x)), then one chain to a class;
- class after class: one chain through several classes;
- hidden units: the channels of conv4 that real images excite most at the middle of the map, by
  their softmax over channels there: three real images that do it best, then ends of chains;
- inpainting a hidden square, one image of each class: the clamp of Eq. 25 alone, with the
  context term (epsilon 4), and the same chain that sees no pixel;
- digits (`--digits FILE`): the classifier is one of MNIST, the generator still one of garments.
  LeNet's files become FILE by `python -m weights_convert caffe lenet.prototxt
  lenet_iter_10000.caffemodel --preset lenet --output ip2 --out FILE`.

Reported: for chains from real images and through classes, the judge's accuracy at the end of
each stage (and the mean squared distance to the real image); for units the share at the start
and at the end; for inpainting the mean squared error of G(h) on seen pixels and on hidden
ones; for digits the classifier's mean probability of the digit at the start, at the end and at
the end of chains that follow the prior alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from common import batched
from ppgn import Study

import jaxgen
from jaxgen import data
from jaxgen.applications.ppgn import PlugAndPlay, PPGNUpdate, Unit, run_chains
from jaxgen.core.pytree import replace
from jaxgen.plotting.pictures import class_grid, masked

COLUMNS = 10
EPSILON1, EPSILON3, STEP = 0.1, 0.3, 0.3


class Chains(NamedTuple):
    """Where the chains of all examples come from."""

    study: Study
    model: PlugAndPlay
    rule: PPGNUpdate
    key: Any
    steps: int
    count: int

    def run(self, labels, *, model=None, start=None, fold=0, **change):
        """Return a `PPGNResult` of `count` chains; `change` is of the rule."""
        return run_chains(
            jax.random.fold_in(self.key, fold),
            model or self.model,
            list(labels),
            replace(self.rule, **change),
            num_steps=self.steps,
            num_chains=self.count,
            start=start,
            tile=min(self.count, 16),
        )

    def images(self, codes):
        """G of `[N, ...]` codes."""
        return np.asarray(batched(self.model.generator, codes))

    def accuracy(self, codes, label):
        """How often the judge sees the class."""
        logits = batched(self.study.nets["judge"], self.images(codes))
        return round(float(np.mean(np.argmax(np.asarray(logits), axis=1) == label)), 3)


def joint(study, key, steps, count):
    """Return the chains of the examples, with their rule."""
    step = STEP * study.mean_code
    rule = PPGNUpdate.ppgn(
        EPSILON1, EPSILON3, first_step=step, last_step=0.1 * step, gradient="log_softmax"
    )
    return Chains(study, study.model("joint"), rule, key, steps, count)


def from_real(chains, pairs):
    """Chains that leave real images of one class for another, or for their own."""
    rows, figures = [], {}
    at = np.linspace(0, chains.steps, COLUMNS - 1).astype(int)
    for first, goal in pairs:
        real = chains.study.real[first][: chains.count]
        result = chains.run([goal], start=chains.study.codes(real))
        name = f"{data.CLASS_NAMES[first]} to {data.CLASS_NAMES[goal]}"
        strip = chains.images(result.codes[0, at])
        rows.append((f"from a real {name}", np.concatenate([real[:1], strip])))
        ends = {"start": result.codes[:, 0], "end": result.last}
        figures[name] = {
            f"{when}_{what}": value
            for when, codes in ends.items()
            for what, value in (
                ("accuracy", chains.accuracy(codes, goal)),
                ("squared_distance", mean_square(chains.images(codes) - real)),
            )
        }
    return rows, figures


def class_after_class(chains, labels):
    """One list of classes, the judge asked at the end of each."""
    result = chains.run(labels, last_step=chains.rule.first_step)
    # What is kept of a step is where it began: a stage ends where the next one begins.
    ends = [result.codes[:, i] for i in np.flatnonzero(np.diff(result.labels)) + 1]
    ends.append(np.asarray(result.last))
    at = np.linspace(0, result.codes.shape[1] - 1, 2 * COLUMNS).astype(int)
    strip = chains.images(result.codes[0, at])
    names = [data.CLASS_NAMES[c] for c in labels]
    rows = [("class after class", strip[:COLUMNS]), ("(the same chain, on)", strip[COLUMNS:])]
    return rows, {
        name: chains.accuracy(codes, c) for name, codes, c in zip(names, ends, labels, strict=True)
    }


def hidden_units(chains, count):
    """Return the channels whose share real images drive highest, each of another kind of image."""
    unit = Unit(chains.study.nets["cnn"].at("conv4"), (3, 3))
    real = jnp.concatenate(list(chains.study.real.values()))
    shares = np.asarray(jax.nn.softmax(batched(unit, real)))
    top = np.sort(shares, axis=0)[-3:].mean(axis=0)
    channels = [int(c) for c in np.argsort(-top)[:count]]
    rows, figures = [], {}
    seen = replace(chains.model, classifier=unit)
    for channel in channels:
        result = chains.run([channel], model=seen, fold=channel)
        images = chains.images(result.last)
        end = np.asarray(jax.nn.softmax(batched(unit, images)))[:, channel]
        best = real[np.argsort(-shares[:, channel])[:3]]
        rows.append((f"conv4, channel {channel}", np.concatenate([best, images])[:COLUMNS]))
        figures[f"channel {channel}"] = {
            "real_mean": rounded(shares[:, channel].mean()),
            "real_best_3": rounded(top[channel]),
            "start": rounded(result.probabilities[:, 0].mean()),
            "end": rounded(end.mean()),
            "end_most_active": rounded(
                np.mean(np.argmax(np.asarray(batched(unit, images)), axis=1) == channel)
            ),
        }
    return rows, figures


def inpainting(chains, classes, epsilon4):
    """Return a hidden square of 12 x 12: truth, what is seen, and three ways to fill it."""
    mask = np.zeros((28, 28, 1), np.float32)
    mask[8:20, 8:20] = 1
    ways = {
        "clamp": (True, 0.0),
        "clamp and context": (True, epsilon4),
        "no pixel seen": (False, 0.0),
    }
    truth = {c: np.asarray(chains.study.real[c][5]) for c in classes}
    rows = [
        ("truth", np.stack(list(truth.values()))),
        ("seen", np.stack([masked(x, 1 - mask) for x in truth.values()])),
    ]
    figures = {}
    for name, (seen, weight) in ways.items():
        shown, errors = [], []
        for c, real in truth.items():
            held = replace(chains.model, mask=mask, real=real) if seen else chains.model
            # The clamp speaks through the prior alone, which needs its full weight for that.
            result = chains.run([c], model=held, fold=c, epsilon1=1.0, epsilon4=weight)
            images = chains.images(result.last)
            shown.append(np.asarray(held.image(result.last[0])))
            square = np.square(images - real)
            errors.append([square[:, mask == 0].mean(), square[:, mask == 1].mean()])
        rows.append((name, np.stack(shown)))
        seen_error, hidden_error = np.mean(errors, axis=0)
        figures[name] = {"seen": rounded(seen_error), "hidden": rounded(hidden_error)}
    real = np.stack(list(truth.values()))
    back = np.square(chains.images(chains.study.codes(jnp.asarray(real))) - real)
    figures["G(E(truth))"] = {
        "seen": rounded(back[:, mask == 0].mean()),
        "hidden": rounded(back[:, mask == 1].mean()),
    }
    return rows, figures


def digits(chains, path):
    """MNIST's digits by a generator of garments: another data set's classifier plugged in."""
    lenet = jaxgen.load(path)
    model = replace(chains.model, classifier=lenet)
    shown, p = {"start": [], "end": [], "prior": []}, {"start": [], "end": [], "prior": []}
    for digit in range(10):
        result = chains.run([digit], model=model, fold=digit)
        followed = chains.run([digit], model=model, fold=digit, epsilon2=0.0)
        for name, codes in (
            ("start", result.codes[:, 0]),
            ("end", result.last),
            ("prior", followed.last),
        ):
            images = chains.images(codes)
            p[name].append(np.asarray(jax.nn.softmax(batched(lenet, images)))[:, digit])
            shown[name].append(images[:2])
    names = {"start": "codes to start from", "end": "digits 0 to 9", "prior": "prior alone"}
    rows = [(names[k], np.stack([images[0] for images in shown[k]])) for k in names]
    rows.insert(2, ("(another chain)", np.stack([images[-1] for images in shown["end"]])))
    means = {name: rounded(np.mean(values)) for name, values in p.items()}
    return rows, {**means, "end_by_digit": [rounded(x.mean()) for x in p["end"]]}


def mean_square(difference):
    """Over everything."""
    return rounded(np.mean(np.square(np.asarray(difference))))


def rounded(value):
    """Four digits."""
    return round(float(value), 4)


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--weights", type=Path, help="folder that `jaxgen train` wrote to")
    options.add_argument("--digits", type=Path, help="a classifier of MNIST, 28 x 28 in [0, 1]")
    options.add_argument("--figure", type=Path, help="where to save the picture")
    options.add_argument("--chains", type=int, default=8)
    options.add_argument("--steps", type=int, default=100, help="for each class")
    options.add_argument("--epsilon4", type=float, default=1.0, help="of the context")
    options.add_argument("--only", help="some of the examples only, with commas between")
    args = options.parse_args()
    args.classes = [1, 7] if args.smoke else list(range(10))
    if args.smoke:
        args.chains, args.steps = 2, 12
    study = Study(args)
    chains = joint(study, jax.random.key(args.seed), args.steps, args.chains)
    pairs = [(7, 7), (7, 1)] if args.smoke else [(7, 7), (7, 8), (8, 3)]
    tour = [1, 7] if args.smoke else [7, 9, 8, 3, 1]
    examples = {
        "from_real": lambda: from_real(chains, pairs),
        "class_after_class": lambda: class_after_class(chains, tour),
        "hidden_units": lambda: hidden_units(chains, 1 if args.smoke else 3),
        "inpainting": lambda: inpainting(chains, args.classes, args.epsilon4),
        "digits": lambda: digits(chains, args.digits),
    }
    if args.digits is None:
        del examples["digits"]
        print("no --digits FILE: that example is left out", file=sys.stderr)
    rows, lines = [], []
    for name in args.only.split(",") if args.only else examples:
        begin = time.process_time()
        shown, figures = examples[name]()
        rows += shown
        seconds = round(time.process_time() - begin, 1)
        lines.append({"example": name, **figures, "cpu_seconds": seconds})
        print(lines[-1], file=sys.stderr, flush=True)
    if args.figure is not None:
        labels, strips = zip(*rows, strict=True)
        title = "Joint PPGN-h on Fashion-MNIST"
        class_grid(strips, labels, title=title).save(args.figure, optimize=True)
    common.report("ppgn_examples", chains=args.chains, steps=args.steps, rows=lines)


if __name__ == "__main__":
    main()
