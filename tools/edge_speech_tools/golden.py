"""Golden vectors of a bundle: one recording, and what every stage must make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_speech import bundle
from edge_speech.bundle_manifest import FileEntry
from edge_speech.decoder import open_decoder, text_of
from edge_speech.encoder import Encoder
from edge_speech.features import features_of
from edge_speech_tools.decoding import Line, decode
from edge_speech_tools.recordings import Recording, at_rate

MAX_SECONDS = 15


def write_golden(folder: Path, line: Line, reference: Encoder, recording: Recording) -> tuple[FileEntry, ...]:
    """Write waveform, features, log_probs and text of `recording`, its first 15 s at the front end's rate."""
    rate = line.frontend.sample_rate
    waveform = at_rate(recording, rate)[: MAX_SECONDS * rate]
    cut = Recording(recording.name, recording.text, lambda: (waveform, rate))
    (decoded,) = decode(line, reference, [cut], keep_log_probs=True)
    assert decoded.log_probs is not None
    text = text_of(open_decoder(line.tokens, line.decoder), decoded.log_probs)
    arrays = {
        bundle.GOLDEN_WAVEFORM: waveform,
        bundle.GOLDEN_FEATURES: features_of(waveform, line.frontend),
        bundle.GOLDEN_LOG_PROBS: decoded.log_probs,
    }
    for name, array in arrays.items():
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(folder / name, array)
    (folder / bundle.GOLDEN_TEXT).write_text(text, encoding="utf-8")
    return tuple(bundle.describe_file(folder, name) for name in [*arrays, bundle.GOLDEN_TEXT])
