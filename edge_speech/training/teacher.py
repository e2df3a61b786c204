"""What a teacher is: a trained model that says how likely each token is in whole waveforms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from edge_speech.features import SILENCE
from edge_speech.training import checkpoint, wav2vec2
from edge_speech.training.checkpoint import LoadedModel
from edge_speech.training.frontends import features_of, frontend_for


class Teacher:
    """A trained model of any architecture, in eval mode.

    `tokens` (V) has the blank first; waveforms are read at `sample_rate`; row i of log_probs stands for
    `samples_per_row` samples from i times as many on.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model = loaded.model.eval()
        self.tokens = tuple(loaded.tokens)
        self.frontend = frontend_for(loaded.architecture, loaded.frontend)
        self.sample_rate = self.frontend.sample_rate
        frame = round(self.frontend.frame_shift_ms * self.sample_rate / 1000)
        self.samples_per_row = frame * self.model.subsampling_factor

    @torch.no_grad()
    def log_probs(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveforms (B, samples) on the CPU, of which lengths (B,) count → log_probs (B, T, V) on the model's
        device, and how many rows of each count (B,)."""
        every = [
            torch.from_numpy(features_of(waveform[:length].numpy(), self.frontend))
            for waveform, length in zip(waveforms, lengths.tolist(), strict=True)
        ]
        factor = self.model.subsampling_factor
        rows = torch.tensor([-(-len(features) // factor) for features in every])
        batch = pad_sequence(every, batch_first=True, padding_value=SILENCE)
        return self.model.parallel(batch.to(next(self.model.parameters()).device)), rows


def load_teacher(path: Path, bundle: str = "") -> Teacher:
    """A teacher from model.pt of `edge-speech train` or, where `bundle` names what torchaudio calls it in
    torchaudio.pipelines, from a file of a recogniser as torchaudio publishes it. Raises InputError."""
    return Teacher(wav2vec2.load(path, bundle) if bundle else checkpoint.load_model(path))
