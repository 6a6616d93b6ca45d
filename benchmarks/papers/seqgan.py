"""Does adversarial training make a language model better than maximum likelihood does?

SeqGAN's synthetic task: a published LSTM with random weights, the oracle, writes 10,000
sequences of 20 tokens out of 5,000; another LSTM learns from them, and its own sequences are
judged by the oracle's negative log likelihood (nats a token; lower is better, the oracle's own
sequences are the floor). First by maximum likelihood until the oracle's judgement stops
improving, then by policy gradients against a discriminator.

The oracle's weights are a pickle of arrays, read without running anything:

  python benchmarks/papers/seqgan.py --oracle target_params_py3.pkl

With --text FILE instead, sentences of a text are learned (a line each, as windows of 20 tokens of
the --vocabulary most frequent words) and the measure is BLEU-2 of 2,000 generated windows against
all of a held-out part (higher is better; real windows of the training part are the ceiling).

The paper on the oracle: 9.038 by maximum likelihood (120 passes over the data), 8.736 after 200
rounds of one policy step and 15 passes of the discriminator. `--passes`, `--rounds` and
`--reader-steps` say how much of that is done here.
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
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.text.language_models import ORACLE_FILTERS, LanguageModel, TextCNN
from jaxgen.sequences import seqgan, text
from jaxgen.train.loop import train_loop
from weights_convert.numpy_pickle import read_numpy_pickle

SEQUENCES, LENGTH, BATCH = 10_000, 20, 64


def oracle(path):
    """Return the published LSTM: an embedding, (W, U, b) of the four gates, and the output."""
    arrays = read_numpy_pickle(path)
    if len(arrays) != 15:
        raise InputError(f"{path}: expected 15 arrays of an oracle; got {len(arrays)}")
    embedding, *gates = (jnp.asarray(arrays[str(i)], jnp.float32) for i in range(13))
    vocabulary, size = embedding.shape
    writer = LanguageModel(vocabulary, size, gates[1].shape[0], rngs=nnx.Rngs(0))
    writer.embedding[...] = embedding
    for name, parts in (("w", gates[0::3]), ("u", gates[1::3]), ("b", gates[2::3])):
        getattr(writer, name)[...] = jnp.concatenate(parts, axis=-1)
    writer.w_out[...] = jnp.asarray(arrays["13"], jnp.float32)
    writer.b_out[...] = jnp.asarray(arrays["14"], jnp.float32)
    return writer


class Task(NamedTuple):
    """What is learned and how it is judged: sequences `[N, T]` of V tokens, tokens to a figure."""

    vocabulary: int
    data: Any
    judge: Any
    reference: float


def oracle_task(teacher, key, count):
    """Sequences by the oracle, judged by its negative log likelihood."""
    data = jax.jit(lambda key: teacher.sample(key, count, LENGTH))(key)
    judge = jax.jit(lambda tokens: seqgan.negative_log_likelihood(teacher, tokens))
    return Task(teacher.vocabulary, data, judge, float(judge(data)))


def text_task(path, size):
    """Windows of a text, judged by BLEU-2 against every fifth sentence, which is held out."""
    sentences = text.read_sentences(path)
    learned = [s for i, s in enumerate(sentences) if i % 5]
    words = text.Vocabulary.build(learned, size)
    data = text.windows(words.encode(learned), LENGTH)
    held_out = text.windows(words.encode(sentences[::5]), LENGTH)

    def judge(tokens):
        return text.bleu(np.asarray(tokens), held_out, 2)

    real = data[np.random.default_rng(0).choice(len(data), min(2_000, len(data)), replace=False)]
    return Task(len(words.words), jnp.asarray(data), judge, judge(real))


def run(args, seed, teacher, filters):
    """Return the figure after maximum likelihood, and after each round of the game."""
    keys = jax.random.split(jax.random.key(seed), 6)
    if args.text:
        task = text_task(args.text, args.vocabulary)
    else:
        task = oracle_task(teacher, keys[0], 256 if args.smoke else SEQUENCES)
    data, count = task.data, len(task.data)
    writer = LanguageModel(task.vocabulary, rngs=nnx.Rngs(seed))
    graph = nnx.split(writer)[0]
    config = seqgan.SeqGANConfig(batch=BATCH, length=LENGTH, rollouts=args.rollouts)
    draw = jax.jit(lambda params, key: nnx.merge(graph, params).sample(key, 2_000, LENGTH))

    def judged(params, key):
        return float(task.judge(draw(params, key)))

    def batcher(data, key):
        return data[jax.random.randint(key, (BATCH,), 0, len(data))]

    row = {"seed": seed, "reference": task.reference}
    begun = time.perf_counter()
    history = []
    state = train_loop(
        keys[1],
        seqgan.begin_likelihood(writer, config),
        seqgan.likelihood_step(writer, config),
        batcher,
        data,
        steps=args.passes * (count // BATCH),
        chunk=200,
        visit=lambda done, state: history.append((done, judged(state.writer, keys[2]))),
        stops=tuple(range(1000, args.passes * (count // BATCH), 1000)),
        progress=lambda done, m: tell(f"seed {seed}: {done} updates, {m['nll']:.3f}"),
    )
    row |= {"likelihood": history[-1][1], "likelihood_history": history}
    row["likelihood_seconds"] = round(time.perf_counter() - begun, 1)

    reader = TextCNN(task.vocabulary, filters=filters, rngs=nnx.Rngs(seed + 100))
    learn = jax.jit(seqgan.discriminate_step(writer, reader, config))
    act = jax.jit(seqgan.policy_step(writer, reader, config))
    game = seqgan.begin_adversarial(state.writer, reader, config)
    begun, t, rounds = time.perf_counter(), 0, []

    def discriminate(game, steps, t):
        for _ in range(steps):
            key = jax.random.fold_in(keys[3], t)
            game, metrics = learn(game, batcher(data, jax.random.fold_in(key, 1)), key)
            t += 1
        return game, metrics, t

    game, metrics, t = discriminate(game, args.pretrain, t)
    for i in range(args.rounds):
        game, acted = act(game, None, jax.random.fold_in(keys[4], i))
        game, metrics, t = discriminate(game, args.reader_steps, t)
        if i % 5 == 4 or i + 1 == args.rounds:
            rounds.append((i + 1, judged(game.writer, keys[2])))
            tell(
                f"seed {seed}: round {i + 1}, {rounds[-1][1]:.4f}, "
                f"accuracy {metrics['accuracy']:.2f}, reward {acted['reward']:.3f}"
            )
    row |= {
        "adversarial": rounds[-1][1],
        "adversarial_history": rounds,
        "adversarial_seconds": round(time.perf_counter() - begun, 1),
    }
    return row


def tell(text):
    """One line for the reader, on stderr."""
    print(text, file=sys.stderr, flush=True)


def main():
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--oracle", help="target_params_py3.pkl of SeqGAN's repository")
    parser.add_argument("--text", help="a file of sentences to learn instead")
    parser.add_argument("--vocabulary", type=int, default=2_000, help="of a text (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=60, help="over the data, by likelihood")
    parser.add_argument("--pretrain", type=int, default=300, help="updates of the reader")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--reader-steps", type=int, default=15, help="in each round")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--narrow", type=int, default=4, help="divide the filters' number by")
    parser.add_argument("--rows", help="a file of JSON lines to go on with")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.passes, args.pretrain, args.rounds = 1, 2, 2, 2
        args.reader_steps, args.rollouts, args.narrow = 1, 2, 20
        teacher = LanguageModel(50, scale=1.0, rngs=nnx.Rngs(7))
    elif args.oracle or args.text:
        teacher = oracle(args.oracle) if args.oracle else None
    else:
        parser.error("--oracle FILE or --text FILE is needed (or --smoke)")
    filters = [(width, max(1, count // args.narrow)) for width, count in ORACLE_FILTERS]
    rows = common.Rows(args.rows, "seed")
    for seed in range(args.seed, args.seed + args.seeds):
        if seed not in rows:
            rows.add(run(args, seed, teacher, filters))
    names = ("reference", "likelihood", "adversarial")
    common.report(
        "seqgan",
        measure="BLEU-2" if args.text else "nll by the oracle",
        length=LENGTH,
        passes=args.passes,
        rounds=args.rounds,
        reader_steps=args.reader_steps,
        rollouts=args.rollouts,
        filters=sum(count for _, count in filters),
        change=[round(row["adversarial"] - row["likelihood"], 4) for row in rows],
        **{name: round(float(np.mean([row[name] for row in rows])), 4) for name in names},
        rows=list(rows),
    )


if __name__ == "__main__":
    main()
