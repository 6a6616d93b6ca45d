"""The hyper-parameters of networks of words, see `jaxgen.sequences.jobs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["InfillerConfig", "Stages", "TextConfig", "WriterConfig"]


class Stages(NamedTuple):
    """The number of updates of each part of a run."""

    likelihood: int
    judge: int
    game: int


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The settings that language models and infillers share.

    Attributes:
      steps: updates in all, a round of the game counted as one.
      judge, game: shares of them that are the judge's alone, and rounds; no game if 0.
      vocabulary: V, the most that are taken of the text's words.
      batch, embedding, hidden: B, and the networks' sizes.
      every, patience: of `jaxgen.train.loop.EarlyStop`.
    """

    steps: int
    judge: float = 0.0
    game: float = 0.0
    vocabulary: int
    batch: int
    embedding: int
    hidden: int
    every: int = 200
    patience: int = 5

    @property
    def stages(self) -> Stages:
        """The shares in whole updates; a game has one round at least."""
        if self.game == 0:
            return Stages(self.steps, 0, 0)
        game = max(1, round(self.game * self.steps))
        judge = min(round(self.judge * self.steps), self.steps - game)
        return Stages(self.steps - game - judge, judge, game)


@dataclass(frozen=True, kw_only=True)
class WriterConfig(TextConfig):
    """The settings of text/writer and text/seqgan; the judge is SeqGAN's discriminator.

    Attributes:
      lr, rollouts, lr_reader: see `seqgan.SeqGANConfig`.
      reader_steps: the reader's updates in a round.
      narrow: what the reader's numbers of filters are divided by, 200 at most.
    """

    vocabulary: int = 2_000
    batch: int = 64
    embedding: int = 32
    hidden: int = 32
    lr: float = 0.01
    rollouts: int = 16
    lr_reader: float = 1e-4
    reader_steps: int = 15
    narrow: int = 4


@dataclass(frozen=True, kw_only=True)
class InfillerConfig(TextConfig):
    """The settings of text/infiller and text/maskgan; the infiller is fixed in the judge's rounds.

    Attributes:
      lr_likelihood, lr, lr_discriminator, lr_critic: see `maskgan.MaskGANConfig`.
      reads: the discriminator's updates in a round.
    """

    vocabulary: int = 1_000
    batch: int = 32
    embedding: int = 64
    hidden: int = 64
    lr_likelihood: float = 3e-3
    lr: float = 2e-4
    lr_discriminator: float = 1e-3
    lr_critic: float = 5e-3
    reads: int = 2
