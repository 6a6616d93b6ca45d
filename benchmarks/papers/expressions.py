"""Faces of a given expression or sex: the Progressive GAN under two small face networks.

    log p(z | c) = log p(z) + log p(c | G(z)) + const

The generator is the Progressive GAN of the co-generation paper (CelebA, 128 x 128); p(c | .) is
the softmax of the published face networks (expression; sex and age), shown the middle of the
image in [0, 1], logits averaged over both mirror images. Conditions are added: "happy + male".
A gradient takes about a second on a CPU, so that every method has few, the same number for
each chain:

  prior  the chains' first draws, which are where `map` starts
  best   of as many prior draws as gradients, the one that the condition likes best
  map    Adam on log p(c | G(z)). On a sphere the prior is flat, so this is its maximum
  ours   `jaxgen.sample` without a pilot: annealed HMC from a pool of prior draws, whose forward
         passes count as a third of a gradient each; the mean over chains, without weights

Reported for each: the mean probability under what was conditioned on (`target`), under views
of the same networks that nothing was conditioned on, other crops (`held_out`: a check against
views that fool a network, no independent judge), and under the network that was NOT
conditioned on, how far it moved from the first draws (`other_`: years of age and probability of
female, where the expression alone was asked for; else the expression's total variation). Ascent
stays near its start; another draw is another person, and should be: compare with `best`.
`judge` is the probability of the sex under a network that nothing was conditioned on, of other
authors and trained on other images (`--judge face-gender`, if it was fetched).
`log_z` has a check: `log_mean_prior`, the log of the mean probability over all prior draws.
`exact` is the mean probability under the posterior itself, from all prior draws by their weights.
`distinct` is the mean angle between chains' latents, over a right angle. |z| says nothing,
since the sphere fixes it. Nothing has converged at this size.

  jaxgen fetch progan-celeba128 face-expression face-age-gender face-gender
  python benchmarks/papers/expressions.py --rows runs/expressions.jsonl --figure expressions.png

`--network`, `--expression` and `--age-gender` also take files. What `--rows` holds is not
done again.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import kernels
from jaxgen.core.pytree import pytree, static
from jaxgen.models.ported.faceapi import EXPRESSIONS
from jaxgen.plotting.pictures import class_grid
from jaxgen.target.conditions import Sum

SIZE = 112
# Row and column of the corner and the side, of 128: what is conditioned on, and what is not.
CROP = (10, 10, 108)
# The judge's face chip is a tighter one, 32 pixels wide; its classes are female and male.
CHIP, CHIP_SIZE = (30, 20, 88), 32
HELD_OUT = ((16, 14, 100), (4, 4, 120), (14, 8, 104))
SEXES = ("male", "female")
METHODS = ("prior", "best", "ours", "map")
LEAPFROG = 4


@pytree
class Face:
    """A network's logits of a square of an image, averaged over both mirror images."""

    network: jaxgen.Network
    crop: tuple[int, int, int] = static(default=CROP)
    first: int = static(default=0)

    def __call__(self, image):
        """Image `[H, H, 3]` -> logits `[K]`."""
        return self.network(pair(image, self.crop)).mean(axis=0)[self.first :]


def pair(image, crop):
    """Return a square of an image, clipped to [0, 1] and resized, and its mirror image."""
    seen = square(image, crop, SIZE)
    return jnp.stack([seen, seen[:, ::-1]])


def square(image, crop, size):
    """Return a square of an image, clipped to [0, 1] and resized."""
    top, left, side = (n * image.shape[0] // 128 for n in crop)
    seen = jnp.clip(image[top : top + side, left : left + side], 0, 1)
    return jax.image.resize(seen, (size, size, 3), "linear")


def kind_of(word):
    """(network, its classes, where they begin in its output: after the age)."""
    return ("sex", SEXES, 1) if word in SEXES else ("expression", EXPRESSIONS, 0)


def condition_of(nets, words):
    """log p(word | image), added up over the words."""
    terms = []
    for word in words.split(" + "):
        kind, names, first = kind_of(word)
        label = jnp.asarray(names.index(word))
        terms.append(jaxgen.ClassLogSoftmax(Face(nets[kind], first=first), label))
    return Sum(tuple(terms))


@jax.jit
def measured(nets, image):
    """Return what the networks say of an image, by crop: probabilities `[1 + held out, K]`, age."""
    nets = dict(nets)
    judge = nets.pop("judge", None)
    seen = jnp.concatenate([pair(image, crop) for crop in (CROP, *HELD_OUT)])
    found = {kind: net(seen) for kind, net in nets.items()}
    found = {kind: x.reshape(-1, 2, x.shape[-1]).mean(axis=1) for kind, x in found.items()}
    facts = {
        "expression": jax.nn.softmax(found["expression"]),
        "sex": jax.nn.softmax(found["sex"][:, 1:]),
        "age": found["sex"][0, 0],
    }
    if judge is not None:
        female = jax.nn.softmax(judge(square(image, CHIP, CHIP_SIZE)))[0]
        facts["judged"] = jnp.stack([1.0 - female, female])
    return facts


def probability(facts, words, held_out=False):
    """Return the probability of all words under what was conditioned on, or under other crops."""
    result = 1.0
    for word in words.split(" + "):
        kind, names, _ = kind_of(word)
        table = np.asarray(facts[kind])[:, names.index(word)]
        result *= float(table[1:].mean() if held_out else table[0])
    return result


def solve(method, key, posterior, args):
    """(coordinates of the chains, facts) of `map` or `ours`."""
    if method == "map":
        steps = {"num_chains": args.chains, "num_steps": args.gradients}
        found = jaxgen.ascend(key, posterior, prior_weight=0.0, tile=1, **steps)
        return found.position, {"gradients": found.num_gradients}
    # A forward pass is a third of a gradient. Half of the rest is for moves at beta = 1.
    left = args.gradients - args.pool // 3
    steps = max(left // (2 * LEAPFROG), 1)
    found = jaxgen.sample(
        key,
        posterior,
        kernels.HMC(LEAPFROG),
        num_chains=args.chains,
        pilot=False,
        pool=args.pool,
        num_mcmc_steps=1,
        warmup=steps // 3,
        num_steps=steps - steps // 3,
        thin=steps - steps // 3,
        tile=1,
    )
    return found.draws[:, -1], {
        "gradients": int(found.num_gradients.max()) + args.pool // 3,
        "acceptance": round(float(np.mean(found.acceptance_rate)), 3),
        "log_z": round(float(found.log_z), 2),
        "log_z_error": round(float(found.log_z_standard_error), 2),
        "ancestors": int(found.num_ancestors),
        "betas": [round(float(beta), 3) for beta in found.history.beta],
        "steps": [round(float(step), 3) for step in found.history.step_size[1:]],
        "notes": list(found.notes),
    }


def timed(rows, name, make):
    """Return the row of this name; where it is not there yet it is made, and timed."""
    if name in rows:
        return rows[name]
    begin, cpu = time.perf_counter(), time.process_time()
    row = {"name": name, **make()}
    row["seconds"] = round(time.perf_counter() - begin, 1)
    row["cpu_seconds"] = round(time.process_time() - cpu, 1)
    return rows.add(row)


def looked_at(nets, draw, latents):
    """Latents with what the networks say of their images."""
    latents = np.round(np.asarray(latents, np.float64), 4)
    facts = []
    for u in latents:
        found = jax.device_get(measured(nets, draw(jnp.asarray(u, jnp.float32))))
        facts.append({k: np.round(v, 5).tolist() for k, v in found.items()})
    return {"latents": latents.tolist(), "facts": facts}


def chosen(rows, words, method, chains):
    """Return the chains' latents and facts by one method, in one row."""
    if method in ("map", "ours"):
        return rows[f"{words}, {method}"]
    pool = rows["prior"]
    each = len(pool["facts"]) // chains
    index = []
    for i in range(chains):
        mine = range(i * each, (i + 1) * each)
        ahead = [probability(pool["facts"][j], words) for j in mine]
        index.append(mine[0] if method == "prior" else mine[int(np.argmax(ahead))])
    return {k: [pool[k][j] for j in index] for k in ("latents", "facts")}


def spread(latents):
    """Return the mean angle between latents, over that of independent ones (a right angle)."""
    unit = np.asarray(latents) / np.linalg.norm(latents, axis=1, keepdims=True)
    cosine = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return float(np.mean(np.arccos(np.clip(cosine, -1, 1))) / (np.pi / 2)) if cosine.size else 0.0


def summary(rows, words, chains):
    """One condition's figures, by method."""
    first = chosen(rows, words, "prior", chains)["facts"]
    asked = {kind_of(word)[0] for word in words.split(" + ")}
    result = {}
    for method in METHODS:
        row = chosen(rows, words, method, chains)
        facts = row["facts"]
        result[method] = {
            "target": np.mean([probability(f, words) for f in facts]),
            "held_out": np.mean([probability(f, words, True) for f in facts]),
            "distinct": spread(row["latents"]),
        }
        if "sex" in asked and "judged" in facts[0]:
            sex = next(word for word in words.split(" + ") if word in SEXES)
            result[method]["judge"] = np.mean([f["judged"][SEXES.index(sex)] for f in facts])
        pairs = list(zip(facts, first, strict=True))
        if "sex" not in asked:
            result[method] |= {
                "other_female": np.mean([abs(a["sex"][0][1] - b["sex"][0][1]) for a, b in pairs]),
                "other_years": np.mean([abs(a["age"] - b["age"]) for a, b in pairs]),
            }
        elif "expression" not in asked:
            moved = [np.subtract(a["expression"][0], b["expression"][0]) for a, b in pairs]
            result[method]["other_expression"] = np.mean([np.abs(m).sum() / 2 for m in moved])
        result[method] = {k: round(float(v), 3) for k, v in result[method].items()}
        kept = ("gradients", "acceptance", "log_z", "log_z_error", "ancestors", "betas", "notes")
        result[method] |= {k: row[k] for k in kept if k in row}
    plain = np.array([probability(f, words) for f in rows["prior"]["facts"]])
    # Prior draws weighted by the likelihood are draws of the posterior.
    result["exact"] = {"target": round(float(np.mean(plain**2) / np.mean(plain)), 3)}
    return {"log_mean_prior": round(float(np.log(np.mean(plain))), 2), **result}


def cost(rows, conditions, args):
    """CPU seconds a gradient: the least over conditions, the first of which compiles."""
    total = args.chains * args.gradients
    each = {m: min(rows[f"{w}, {m}"]["cpu_seconds"] for w in conditions) for m in METHODS[2:]}
    return {method: round(seconds / total, 2) for method, seconds in each.items()}


def figure(path, draw, rows, conditions, chains):
    """Draw a row of first draws, then for each condition one of `best`, `map` and `ours`."""
    shown = [("prior draws", chosen(rows, conditions[0], "prior", chains))]
    for words in conditions:
        for method, name in (("best", "best prior draws"), ("map", "ascent"), ("ours", "ours")):
            row = chosen(rows, words, method, chains)
            p = np.mean([probability(f, words) for f in row["facts"]])
            shown.append((f"{words}: {name}, p {p:.2f}", row))
    images = [
        np.stack([np.asarray(draw(jnp.asarray(u, jnp.float32))) for u in row["latents"]])
        for _, row in shown
    ]
    title = "Faces under a condition: ascent starts from the first row"
    grid = class_grid(images, [name for name, _ in shown], title=title, scale=1)
    grid.quantize(256).save(path, optimize=True)


def load(args):
    """Return (generator, its prior, {"expression", "sex": network})."""
    if not args.smoke:
        nets = {"expression": jaxgen.load(args.expression), "sex": jaxgen.load(args.age_gender)}
        if args.judge:
            nets["judge"] = jaxgen.load(args.judge)
        return jaxgen.load(args.network), jaxgen.Sphere.of(512), nets
    # Without the networks: the smallest generator there is and random ones in their place.
    from flax import nnx

    from jaxgen.models.ported.faceapi import FaceAgeGender, FaceExpression

    network = jaxgen.load("fashion-mnist/vae")

    def generator(z):
        image = jnp.broadcast_to(network(z), (28, 28, 3))
        return jnp.pad(image, ((2, 2), (2, 2), (0, 0)))

    made = {"expression": FaceExpression, "sex": FaceAgeGender}
    nets = {name: jaxgen.freeze(kind(rngs=nnx.Rngs(0))) for name, kind in made.items()}
    return generator, jaxgen.Sphere.of(20), nets


def main():
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--network", default="progan-celeba128", help="a name or a file")
    parser.add_argument("--expression", default="face-expression", help="a name or a file")
    parser.add_argument("--age-gender", default="face-age-gender", help="a name or a file")
    parser.add_argument("--judge", help="a name or a file, as face-gender; none by default")
    parser.add_argument(
        "--conditions", default="surprised,happy,female", help="with commas between (%(default)s)"
    )
    parser.add_argument("--gradients", type=int, default=32, help="for each chain (%(default)s)")
    parser.add_argument("--chains", type=int, default=8, help="at least 8 (%(default)s)")
    parser.add_argument("--pool", type=int, default=64, help="prior draws for each chain of ours")
    parser.add_argument("--rows", help="a file of JSON lines to go on with")
    parser.add_argument("--figure", help="also draw the figure into this file")
    args = parser.parse_args()
    if args.smoke:
        args.gradients, args.chains, args.conditions, args.pool = 8, 8, "happy + male", 3
    generator, prior, nets = load(args)
    conditions = args.conditions.split(",")
    key = jax.random.key(args.seed)

    # Given as an argument, weights are not compiled into the program.
    any_face = jaxgen.Posterior(prior, generator, condition_of(nets, conditions[0]))
    draw = functools.partial(jax.jit(lambda posterior, u: posterior.image(u)), any_face)

    def pool():
        starts = [
            prior.sample(jax.random.fold_in(jax.random.fold_in(key, i), j))
            for i in range(args.chains)
            for j in range(args.gradients)
        ]
        return looked_at(nets, draw, starts) | {"seed": args.seed}

    rows = common.Rows(args.rows, "name")
    first = timed(rows, "prior", pool)
    if (len(first["facts"]), first["seed"]) != (args.chains * args.gradients, args.seed):
        raise SystemExit(f"{args.rows}: made with other gradients, chains or seed")
    for words in conditions:
        posterior = jaxgen.Posterior(prior, generator, condition_of(nets, words))
        for method in METHODS[2:]:

            def run(method=method, posterior=posterior):
                position, facts = solve(method, key, posterior, args)
                return looked_at(nets, draw, position) | facts

            timed(rows, f"{words}, {method}", run)
        print(json.dumps({words: summary(rows, words, args.chains)}), flush=True)
    if args.figure:
        figure(args.figure, draw, rows, conditions, args.chains)
    common.report(
        "expressions",
        gradients_a_chain=args.gradients,
        chains=args.chains,
        cpu_seconds_a_gradient=cost(rows, conditions, args),
        rows=[{"condition": w, **summary(rows, w, args.chains)} for w in conditions],
    )


if __name__ == "__main__":
    main()
