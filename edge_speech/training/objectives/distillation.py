"""A student learns from what a teacher says, beside the texts: row by row, or as whole texts.

Row by row: Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531. Whole texts: Kim and Rush 2016,
https://arxiv.org/abs/1606.07947. The teacher hears the augmented waveform before anything is masked; it may
have another front end, another rate of rows, and its tokens in another order. One that hears whole recordings
says a token earlier than a stream can: whole texts do not mind, rows do.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from edge_speech.errors import InputError
from edge_speech.features import resample
from edge_speech.training.data import Batch
from edge_speech.training.frontends import frontend_for
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.objectives.ctc import Ctc, best_path, ctc_loss
from edge_speech.training.recipe import Distillation as Settings
from edge_speech.training.recipe import Recipe
from edge_speech.training.teacher import Teacher, load_teacher
from edge_speech.training.tokens import Tokens, spell


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """Read the teacher. Raises InputError."""
    how = recipe.distillation
    if how is None:
        raise InputError("recipe: objective = 'distillation' needs a [distillation] section with a teacher")
    frontend = frontend_for(recipe.architecture, recipe.frontend)
    teacher = load_teacher(Path(recipe.data.root) / how.teacher, how.bundle)
    row_s = frontend.frame_shift_ms / 1000 * model.subsampling_factor
    return Distillation(tokens, teacher, how, frontend.sample_rate, row_s)


class Distillation(Ctc):
    """The texts' CTC loss, the teacher's texts' and the divergence from its rows, weighted to one.

    Batches hold waveforms at `sample_rate`; a row of the student's stands for `row_s` seconds.
    """

    def __init__(
        self, tokens: Tokens, teacher: Teacher, how: Settings, sample_rate: int, row_s: float
    ) -> None:
        super().__init__(tokens)
        self.teacher, self.how, self.sample_rate, self.row_s = teacher, how, sample_rate, row_s
        self.places = places_of(tokens.symbols, teacher.tokens) if how.frame_weight else []

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective."""
        log_probs, lengths = model.parallel(batch.features), output_lengths(model, batch)
        taught, rows = self._ask(batch)
        how, loss = self.how, log_probs.new_zeros(())
        if text_weight := 1.0 - how.frame_weight - how.sequence_weight:
            loss = loss + text_weight * ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths)
        if how.sequence_weight:
            loss = loss + how.sequence_weight * self._of_texts(log_probs, lengths, taught, rows)
        if how.frame_weight:
            loss = loss + how.frame_weight * self._of_rows(log_probs, lengths, taught, rows)
        return loss

    def _ask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The teacher's log_probs (B, T, V) and how many rows of each count (B,)."""
        waveforms = [
            torch.from_numpy(resample(w[:n].numpy(), self.sample_rate, self.teacher.sample_rate))
            for w, n in zip(batch.waveforms, batch.waveform_lengths.tolist(), strict=True)
        ]
        self.teacher.model.to(batch.features.device)
        lengths = torch.tensor([len(w) for w in waveforms])
        return self.teacher.log_probs(pad_sequence(waveforms, batch_first=True), lengths)

    def _of_texts(self, log_probs: Tensor, lengths: Tensor, taught: Tensor, rows: Tensor) -> Tensor:
        """CTC loss of what the teacher writes; an utterance of which that is nothing counts nothing."""
        texts = [spell(self.teacher.tokens, best_path(t[:n])) for t, n in zip(taught, rows, strict=True)]
        every = [self.tokens.encode(text.lower()) or [] for text in texts]
        known = [i for i, numbers in enumerate(every) if numbers]
        if not known:
            return log_probs.new_zeros(())
        targets = torch.tensor([n for i in known for n in every[i]], device=log_probs.device)
        counts = torch.tensor([len(every[i]) for i in known])
        return len(known) / len(every) * ctc_loss(log_probs[known], lengths[known], targets, counts)

    def _of_rows(self, log_probs: Tensor, lengths: Tensor, taught: Tensor, rows: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence of the student's rows from the teacher's over their span."""
        teacher_row_s = self.teacher.samples_per_row / self.teacher.sample_rate
        span = overlaps(log_probs.shape[1], self.row_s, taught.shape[1], teacher_row_s).to(taught)
        softened = (taught.float() / self.how.temperature).softmax(dim=2)[:, :, self.places]
        spread = torch.matmul(span, softened / softened.sum(dim=2, keepdim=True))
        own = (log_probs.float() / self.how.temperature).log_softmax(dim=2)
        divergence = functional.kl_div(own, spread, reduction="none").sum(dim=2)
        last = torch.minimum(lengths, (rows * teacher_row_s / self.row_s).ceil().long())
        counted = (torch.arange(log_probs.shape[1]) < last[:, None]).to(divergence)
        return self.how.temperature**2 * (divergence * counted).sum() / counted.sum().clamp(min=1)


def places_of(symbols: tuple[str, ...], taught: tuple[str, ...]) -> list[int]:
    """Where each of the student's symbols stands among the teacher's, which may be capitals.

    Raises InputError where one is not there.
    """
    place = {symbol.lower(): i for i, symbol in reversed(list(enumerate(taught)))}
    if missing := [symbol for symbol in symbols if symbol.lower() not in place]:
        raise InputError(
            f"the teacher has no token {missing[0]!r}, so its rows cannot be followed; give both the same "
            "units, or set distillation.frame_weight = 0 and learn its texts by sequence_weight"
        )
    return [place[symbol.lower()] for symbol in symbols]


def overlaps(rows: int, row_s: float, taught_rows: int, taught_row_s: float) -> Tensor:
    """(rows, taught_rows): the share of each row's time that each of the teacher's rows takes up.

    What lies beyond the teacher's end belongs to its last row.
    """
    edges = torch.arange(rows + 1, dtype=torch.float64)[:, None] * row_s
    begin = torch.arange(taught_rows, dtype=torch.float64) * taught_row_s
    end = begin + taught_row_s
    end[-1:] = max(float(edges[-1]), float(end[-1]))
    shared = torch.minimum(edges[1:], end) - torch.maximum(edges[:-1], begin)
    return shared.clamp(min=0) / row_s
