r"""PPGN's chains and Xu's grid at ImageNet scale, from the authors' own Caffe files.

    python benchmarks/papers/ppgn_imagenet.py \
        --generator ppgn_generator.prototxt generator.caffemodel \
        --encoder ppgn_caffenet.prototxt caffenet.caffemodel \
        --classes 643,624,304,629,437 --figure grid.png [--bounds fc6.txt] [--classifier ...]

Generator: code -> 256 x 256, BGR less the mean, cropped to the encoder's side at the place the
authors use ((256 - 227) // 2 = 14). Encoder: image -> fc6 after its ReLU; it is the prior of
Noiseless Joint PPGN-h and, unless `--classifier` names another, the condition network, too.
None of these weights come with jaxgen; their licences are their owners'.

Rows of the picture: `ppgn` (their class script: 200 steps of 1, epsilons 1e-5, 1, 1e-17),
`dgn-am` (200 steps of 8 -> 1e-10, decay 0.99) without and with the bounds, `mala`,
`mala+clip` and `hmc` on log p(c|x) + log N(h; 0, I) for as many gradients. Reported: the mean
probability of the class at the end, the size of the codes, seconds of CPU time a gradient (of
the last class; with one class alone compilation is in it) and the peak of memory.

`--random` fills the definitions with random weights (what the smoke run does, at full size:
about 480 MB): it shows that everything fits together and what a gradient costs, no more.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import adapt, kernels, schedules
from jaxgen.applications.ppgn import Encoded, PlugAndPlay, PPGNUpdate, run_chains
from jaxgen.core.pytree import pytree, replace, static
from weights_convert import caffe
from weights_convert.caffe.random_blobs import random_blobs, write_caffemodel
from weights_convert.caffe.wiring import wire_up


@pytree
class Cropped:
    """The middle of what a generator makes, at the authors' offset."""

    generator: jaxgen.Network
    side: int = static()

    def __call__(self, code):
        """Code -> image `[side, side, 3]`."""
        image = self.generator(code)
        offset = (image.shape[0] - self.side) // 2
        return image[offset : offset + self.side, offset : offset + self.side]


def network(files, output, folder, random):
    """Return (the network up to a blob, the shape of its input) of [prototxt, caffemodel]."""
    prototxt = files[0]
    if random:
        model = Path(folder) / f"{Path(prototxt).stem}.caffemodel"
        if not model.exists():
            write_caffemodel(model, random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans))
    elif len(files) < 2:
        raise SystemExit(f"{prototxt}: give its caffemodel, too, or --random")
    else:
        model = files[1]
    graph = caffe.convert(prototxt, model, outputs=[output]).graph
    return jaxgen.freeze(graph), graph.sample_shapes[0]


def rows(args, model, code, bounds, key):
    """name -> (last codes of all classes, gradients a chain, seconds of the last class)."""
    result = {}
    posterior = {
        c: jaxgen.Posterior(
            model.start, model.generator, jaxgen.ClassLogSoftmax(model.classifier, jnp.asarray(c))
        )
        for c in args.classes
    }

    def walked(rule, prior):
        play = model if prior else replace(model, prior=None)

        def one(c):
            done = run_chains(
                key, play, [c], rule, num_steps=args.steps, num_chains=args.chains, tile=1
            )
            return done.last, done.num_gradients

        return one

    def sampled(kernel, first, each):
        count = max(args.steps // each, 2)
        decay = schedules.PolynomialDecay(first, 1.0, 0.55)

        def one(c):
            done = jaxgen.sample(
                key, posterior[c], kernel, num_chains=args.chains, num_steps=count - 1,
                thin=count - 1, warmup=0, betas=np.array([0.0, 1.0]), num_mcmc_steps=1, tile=1,
                step_size=adapt.Scheduled(decay), resample=None, precondition=False, collect=None,
            )  # fmt: skip
            return done.position, int(np.max(done.num_gradients))

        return one

    methods = {
        "ppgn": walked(PPGNUpdate.ppgn(), True),
        "dgn-am": walked(PPGNUpdate.dgnam(low=-np.inf), False),
        "dgn-am+clip": walked(PPGNUpdate.dgnam(high=bounds), False),
        "mala": sampled(kernels.MALA(), args.step_size, 1),
        "mala+clip": sampled(kernels.Clipped(kernels.MALA(), 0.0, bounds), args.step_size, 2),
        "hmc": sampled(kernels.HMC(10), args.step_size, 10),
    }
    for name in args.methods.split(",") if args.methods else methods:
        ends = []
        for c in args.classes:  # the last one is timed: nothing is compiled for it any more
            begin = time.process_time()
            ends.append(jax.block_until_ready(methods[name](c)))
            seconds = time.process_time() - begin
        result[name] = (jnp.stack([jnp.asarray(e[0]) for e in ends]), ends[0][1], seconds)
    return result


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--generator", nargs="+", required=True, metavar="FILE")
    options.add_argument("--encoder", nargs="+", required=True, metavar="FILE")
    options.add_argument("--classifier", nargs="+", metavar="FILE")
    options.add_argument("--image", default="deconv0", help="the generator's blob")
    options.add_argument("--code", default="fc6", help="the encoder's blob")
    options.add_argument("--logits", default="fc8", help="the classifier's blob")
    options.add_argument("--bounds", type=Path, help="upper bound of each unit, as text")
    options.add_argument("--classes", default="643,624,304,629,437")
    options.add_argument("--methods", help="some of the rows only, with commas between")
    options.add_argument("--chains", type=int, default=4)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--step-size", type=float, default=0.01, help="first, of MALA and HMC")
    options.add_argument("--random", action="store_true", help="random weights")
    options.add_argument("--figure", type=Path)
    args = options.parse_args()
    args.classes = [int(c) for c in args.classes.split(",")]
    if args.smoke:
        args.random, args.classes, args.chains, args.steps = True, args.classes[:2], 1, 2
        args.methods = args.methods or "ppgn,dgn-am+clip"
    with tempfile.TemporaryDirectory() as folder:
        generator, code = network(args.generator, args.image, folder, args.random)
        encoder, image = network(args.encoder, args.code, folder, args.random)
        files = args.classifier or args.encoder
        classifier, _ = network(files, args.logits, folder, args.random)
    side = image[0]
    # 3 deviations above the mean of fc6 over ImageNet, about: give the authors' file instead.
    bounds = jnp.full(code, 12.0) if args.bounds is None else jnp.asarray(np.loadtxt(args.bounds))
    model = PlugAndPlay(
        Cropped(generator, side), classifier, Encoded(encoder), jaxgen.Gaussian.standard(code)
    )
    key = jax.random.key(args.seed)
    lines, shown = [], []
    for name, (codes, gradients, seconds) in rows(args, model, code, bounds, key).items():
        flat = codes.reshape(-1, *code)
        images = jax.lax.map(model.generator, flat)
        p = jax.nn.softmax(jax.lax.map(classifier, images))
        labels = np.repeat(args.classes, args.chains)
        lines.append(
            {
                "method": name,
                "gradients": gradients,
                "probability": round(float(jnp.mean(p[jnp.arange(len(labels)), labels])), 4),
                "mean_code": round(float(jnp.mean(jnp.abs(flat))), 4),
                "cpu_seconds_a_gradient": round(seconds / (gradients * args.chains), 3),
            }
        )
        shown.append((name, np.asarray(images)))
    if args.figure is not None:
        from jaxgen.plotting.pictures import class_grid

        # BGR less the mean -> RGB in [0, 1], as the authors' PyTorch ports show them.
        mean = np.array([104.0, 117.0, 123.0])
        rgb = [np.clip((x + mean)[..., ::-1] / 255, 0, 1) for _, x in shown]
        class_grid(rgb, [name for name, _ in shown], scale=1).save(args.figure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kB on Linux -> GiB
    common.report(
        "ppgn_imagenet",
        random_weights=args.random,
        side=side,
        peak_gib=round(peak, 2),
        rows=lines,
    )


if __name__ == "__main__":
    main()
