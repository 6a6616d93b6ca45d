"""Does a discriminator's and a critic's teaching fill blanks better than maximum likelihood?

MaskGAN's question on real text. A language model learns from one half of the windows of 20
tokens, an infiller from the other: first by maximum likelihood, then against a discriminator
with a critic. Windows that neither has seen lose ten tokens in a row, and both infillers fill
them. Measured on these fillings:

  perplexity         of the filled tokens under the language model, after what precedes them
  perplexity_window  of all 20 tokens: what follows the blanks has to fit too
  bleu2              of the ten filled tokens against the language model's half of the text
  distinct2          different pairs of neighbouring tokens over all: a filler that always says
                     the same has a low perplexity too

and the paper's own measures (`maskgan_judge.py`): whether a held-out discriminator tells the
filled windows from real ones, and unique 2-, 3- and 4-grams, for MaskGAN and for maximum
likelihood at several sampling temperatures,

beside real text, words drawn by their frequency, and words drawn evenly. The text is any plain
file with a sentence on each line. The King James Bible (31,102 verses, public domain) is in
Debian's and Ubuntu's package bible-kjv:

  apt-get install bible-kjv
  bible -f gen1:1-rev22:21 | sed 's/^[^ ]* //' > kjv.txt
  python benchmarks/papers/maskgan.py --text kjv.txt

Networks, text and training are much smaller than in the paper (two layers of 650 units), whose
authors report that their own program may not get as far again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from maskgan_judge import colder, told_apart, unique

from jaxgen.models.text.infillers import FilledReader, Infiller
from jaxgen.models.text.language_models import LanguageModel
from jaxgen.sequences import maskgan, seqgan
from jaxgen.sequences.text import Vocabulary, bleu, read_sentences, windows
from jaxgen.train.loop import train_loop

LENGTH, BATCH, READS = 20, 32, 2
CONFIG = maskgan.MaskGANConfig(lr_discriminator=1e-3, lr_critic=5e-3)


def made_up(rng):
    """Sentences of a small grammar, for the smoke size."""
    names, verbs, things = ["ann", "bob", "eve"], ["sees", "hears"], ["cat", "dog", "bird"]
    return [
        [str(rng.choice(x)) for x in (names, verbs, ["the"], things, ["."])] for _ in range(4000)
    ]


def split(tokens, rng):
    """Return the language model's windows, the infiller's, and those that neither sees."""
    tokens = tokens[rng.permutation(len(tokens))]
    unseen = max(100, len(tokens) // 10)
    half = (len(tokens) - unseen) // 2
    return tokens[:half], tokens[half : 2 * half], tokens[2 * half :]


def batcher(data, key):
    """32 windows, drawn with replacement."""
    return data[jax.random.randint(key, (BATCH,), 0, len(data))]


def batches(data, key):
    """One batch for each update in a round."""
    return jnp.stack([batcher(data, k) for k in jax.random.split(key, READS + 1)])


def rounds(infiller, discriminator, critic, config, warm_up):
    """Make READS updates of the discriminator, one of the critic and, later, one of the infiller.

    The state is (networks, how many rounds were played): the infiller is held for `warm_up`.
    """
    learn = maskgan.discriminate_step(infiller, discriminator, config)
    act = maskgan.policy_step(infiller, discriminator, critic, config)

    def step(carry, batch, key):
        state, played = carry
        reads = (batch[:READS], jax.random.split(jax.random.fold_in(key, 0), READS))
        state, judged = jax.lax.scan(lambda s, given: learn(s, *given), state, reads)
        new, acted = act(state, batch[READS], jax.random.fold_in(key, 1))
        old = new._replace(infiller=state.infiller, opt_infiller=state.opt_infiller)
        state = jax.tree.map(lambda a, b: jnp.where(played < warm_up, a, b), old, new)
        return (state, played + 1), jax.tree.map(jnp.mean, judged) | acted

    return step


def run(args, seed, tokens, vocabulary):
    """All figures of one seed."""
    rng = np.random.default_rng(seed)
    ours, theirs, unseen = split(tokens, rng)
    keys = jax.random.split(jax.random.key(seed), 5)
    size, seconds = len(vocabulary.words), {}
    config = CONFIG._replace(lr=args.lr)

    def train(name, key, state, step, batcher, data, steps, visit=None):
        begun = time.perf_counter()
        state = train_loop(
            key,
            state,
            step,
            batcher,
            jnp.asarray(data),
            steps=steps,
            chunk=50,
            every=2,
            checkpoint=Path(args.work) / f"{name}{seed}" if args.work else None,
            fingerprint=f"{name} {size} {args.hidden} {args.lr}",
            progress=lambda done, m: tell(f"seed {seed} {name} {done}: {shown(m)}"),
            visit=visit,
            stops=tuple(range(100, steps, 100)) if visit else (),
        )
        seconds[name] = round(time.perf_counter() - begun, 1)
        return state

    writer = LanguageModel(size, args.hidden, args.hidden, rngs=nnx.Rngs(seed))
    pre = seqgan.SeqGANConfig(batch=BATCH, length=LENGTH, lr=3e-3)
    learned = train(
        "language",
        keys[0],
        seqgan.begin_likelihood(writer, pre),
        seqgan.likelihood_step(writer, pre),
        batcher,
        ours,
        args.language,
    )
    language = nnx.merge(nnx.split(writer)[0], learned.writer)
    infiller = Infiller(size, args.hidden, args.hidden, rngs=nnx.Rngs(seed + 100))
    graph = nnx.split(infiller)[0]
    mle = train(
        "likelihood",
        keys[1],
        maskgan.begin_likelihood(infiller, config),
        maskgan.likelihood_step(infiller, config),
        batcher,
        theirs,
        args.likelihood,
    ).infiller

    real = jnp.asarray(unseen[: args.windows])
    present = maskgan.draw_mask(keys[2], real.shape, config)
    blanks = np.asarray(~present)
    references = ours[:, : LENGTH // 2]  # as long as what is filled in
    log_probs = jax.jit(language.log_probs)
    fill = jax.jit(lambda params, key: nnx.merge(graph, params).fill(key, real, present))

    def surprise(filled):
        """Of each window's filled tokens, nats a token."""
        return -np.asarray(log_probs(filled))[blanks].reshape(len(filled), -1).mean(axis=1)

    def measure(filled):
        log_p, filled = np.asarray(log_probs(filled)), np.asarray(filled)
        pairs = np.stack([filled[:, :-1], filled[:, 1:]], -1)[blanks[:, :-1] & blanks[:, 1:]]
        return {
            "perplexity": round(float(np.exp(-log_p[blanks].mean())), 2),
            "perplexity_window": round(float(np.exp(-log_p.mean())), 2),
            "bleu2": round(bleu(filled[blanks].reshape(len(filled), -1), references), 4),
            "distinct2": round(len(np.unique(pairs, axis=0)) / len(pairs), 4),
        }

    networks = [
        FilledReader(size, args.hidden, args.hidden, critic=x, rngs=nnx.Rngs(seed + 200 + x))
        for x in (False, True)
    ]
    for judge in networks:
        judge.begin_from(nnx.merge(graph, mle))
    game = (maskgan.begin_adversarial(mle, *networks, config), jnp.zeros((), jnp.int32))
    history = []

    def visit(done, game):
        found = measure(fill(game[0].infiller, keys[3]))
        history.append((done, found["perplexity"], found["distinct2"]))
        tell(f"seed {seed} round {done}: {found}")

    state, _ = train(
        "game",
        keys[4],
        game,
        rounds(infiller, *networks, config, args.warm_up),
        batches,
        theirs,
        args.warm_up + args.rounds,
        visit,
    )
    share = np.bincount(theirs.ravel(), minlength=size) / theirs.size
    words = rng.choice(size, real.shape, p=share), rng.integers(2, size, real.shape)
    fillings = {
        "real": real,
        "likelihood": fill(mle, keys[3]),
        "maskgan": fill(state.infiller, keys[3]),
        "by_frequency": jnp.where(present, real, jnp.asarray(words[0], real.dtype)),
        "even": jnp.where(present, real, jnp.asarray(words[1], real.dtype)),
    }
    own, first = {}, jax.random.key(1000 + seed)
    fillers = {f"likelihood {t:g}": colder(mle, t) for t in args.colder} | {
        "maskgan": state.infiller
    }
    for name, params in fillers.items():
        told = [
            told_apart(
                jax.random.fold_in(first, judge),
                lambda key, tokens, given, params=params: nnx.merge(graph, params).fill(
                    key, tokens, given
                ),
                ours[: args.judged],
                real,
                present,
                size,
                args.judge,
            )
            for judge in range(args.judges)
        ]
        accuracy, error = np.mean(told, axis=0).tolist()
        filled = fill(params, keys[3])
        own[name] = {
            "accuracy": round(accuracy, 4),
            "error": round(error, 4),
            **{f"unique{n}": round(unique(filled, blanks, n), 4) for n in (2, 3, 4)},
            "perplexity": measure(filled)["perplexity"],
        }
        tell(f"seed {seed} {name}: {own[name]}")
    own["real"] = {f"unique{n}": round(unique(real, blanks, n), 4) for n in (2, 3, 4)}
    network = nnx.merge(graph, mle)
    gain = surprise(fillings["likelihood"]) - surprise(fillings["maskgan"])
    return {
        "seed": seed,
        **{name: measure(filled) for name, filled in fillings.items()},
        "own_measures": own,
        # Of log perplexity, and its standard error over windows.
        "gain": [float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))],
        "infiller_nll": float(maskgan.negative_log_likelihood(network, real, present)),
        "history": history,  # (rounds with the warm-up's, perplexity, distinct2)
        "train_seconds": seconds,
        "examples": [
            {name: marked(vocabulary, np.asarray(x)[i], blanks[i]) for name, x in fillings.items()}
            for i in range(3)
        ],
    }


def marked(vocabulary, tokens, blanks):
    """Return the words, with brackets around what was filled in."""
    words = [vocabulary.decode([token]) for token in tokens]
    where = np.flatnonzero(blanks)
    words[where[0]] = "[" + words[where[0]]
    words[where[-1]] += "]"
    return " ".join(words)


def harder_to_tell(rows):
    """Return by how much MaskGAN is recognised less often than likelihood at its best temperature.

    The mean over seeds, and two standard errors of it: from the windows, and, where there are
    several seeds, from the scatter of the seeds.
    """
    gains, errors = [], []
    for own in (row["own_measures"] for row in rows):
        best = min((own[x] for x in own if x.startswith("like")), key=lambda x: x["accuracy"])
        gains.append(best["accuracy"] - own["maskgan"]["accuracy"])
        errors.append(np.hypot(best["error"], own["maskgan"]["error"]))
    found = [np.mean(gains), np.linalg.norm(errors) / len(errors)]
    if len(gains) > 1:
        found.append(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    return [round(float(x), 4) for x in found]


def shown(metrics):
    """Metrics on one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def tell(text):
    """One line for the reader, on stderr."""
    print(text, file=sys.stderr, flush=True)


def main():
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--text", help="a plain text file, a sentence on each line")
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=64, help="units of every network")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--language", type=int, default=3000, help="updates of the language model")
    parser.add_argument("--likelihood", type=int, default=3000, help="of the infiller")
    parser.add_argument("--warm-up", type=int, default=200, help="rounds, with the infiller held")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--lr", type=float, default=2e-4, help="of the infiller in the game")
    parser.add_argument("--windows", type=int, default=2000, help="unseen windows to fill")
    parser.add_argument("--judge", type=int, default=600, help="updates of held-out judges")
    parser.add_argument("--judges", type=int, default=4, help="held-out judges of each filler")
    parser.add_argument("--judged", type=int, default=12_000, help="windows that they learn from")
    parser.add_argument("--temperatures", default="1,0.9,0.8,0.7", help="of maximum likelihood")
    parser.add_argument("--work", help="a folder of checkpoints to go on from")
    parser.add_argument("--rows", help="a file of JSON lines to go on with")
    args = parser.parse_args()
    args.colder = [1.0] if args.smoke else [float(t) for t in args.temperatures.split(",")]
    if args.smoke:
        args.judge, args.judged, args.judges = 5, 200, 2
        args.language = args.likelihood = 100
        args.warm_up = args.rounds = 4
        args.hidden, args.windows, args.seeds = 16, 200, 1
        sentences = made_up(np.random.default_rng(0))
    elif args.text:
        sentences = read_sentences(args.text)
    else:
        parser.error("--text FILE is needed (or --smoke)")
    vocabulary = Vocabulary.build(sentences, args.vocabulary)
    tokens = windows(vocabulary.encode(sentences), LENGTH)
    rows = common.Rows(args.rows, "seed")
    for seed in range(args.seed, args.seed + args.seeds):
        if seed not in rows:
            rows.add(run(args, seed, tokens, vocabulary))
    names = ("real", "likelihood", "maskgan", "by_frequency", "even")
    common.report(
        "maskgan",
        sentences=len(sentences),
        windows=len(tokens),
        vocabulary=len(vocabulary.words),
        unknown=round(float(np.mean(tokens == 1)), 4),
        hidden=args.hidden,
        updates=[args.language, args.likelihood, args.warm_up, args.rounds],
        lr=args.lr,
        perplexity={x: round(float(np.mean([r[x]["perplexity"] for r in rows])), 2) for x in names},
        bleu2={x: round(float(np.mean([r[x]["bleu2"] for r in rows])), 4) for x in names},
        harder_to_tell=harder_to_tell(list(rows)),
        rows=list(rows),
    )


if __name__ == "__main__":
    main()
