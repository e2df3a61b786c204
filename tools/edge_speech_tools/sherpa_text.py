"""What sherpa-onnx itself makes of recordings, in a process of its own: it exits on what it dislikes.

python -m edge_speech_tools.sherpa_text JOB.json      texts as JSON on stdout
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.bundle import TOKENS, write_tokens
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import CheckFailed
from edge_speech.features import FrontendConfig
from edge_speech_tools.decoding import Line, decode
from edge_speech_tools.recordings import Recording, at_rate
from edge_speech_tools.reference import TorchEncoder
from edge_speech_tools.sherpa_classes import loading

RECORDINGS = 20
_TIMEOUT_S = 600


@dataclass(frozen=True)
class TextCheck:
    """How many of the `recordings` gave PyTorch's text, `words` in all, in the program `engine`."""

    engine: str
    recordings: int
    identical: int
    words: int

    @property
    def holds(self) -> bool:
        """Every text, and not all of them empty."""
        return self.identical == self.recordings and self.words > 0

    def in_words(self) -> str:
        """One line."""
        silent = "" if self.words else ", all of them empty"
        return f"{self.identical} of {self.recordings} texts of {self.engine} are PyTorch's{silent}"


def check(model: Path, line: Line, reference: TorchEncoder, recordings: Sequence[Recording]) -> TextCheck:
    """The first recordings, silence appended, by sherpa-onnx and by PyTorch. Raises CheckFailed.

    The texts' words are compared: sherpa-onnx shows two spaces where a model puts a lone ▁ twice.
    """
    rate, spec = line.frontend.sample_rate, reference.spec
    waveforms = [with_silence(at_rate(r, rate), spec, line.frontend) for r in recordings[:RECORDINGS]]
    padded = [Recording(str(i), "", lambda w=w: (w, rate)) for i, w in enumerate(waveforms)]  # type: ignore[misc]
    ours = [decoded.text for decoded in decode(line, reference, padded)]
    with tempfile.TemporaryDirectory() as work:
        write_tokens(Path(work), line.tokens)
        theirs = texts(model, Path(work) / TOKENS, waveforms, *loading(spec, line.frontend))
    same = sum(a.split() == b.split() for a, b in zip(ours, theirs, strict=True))
    words = sum(len(text.split()) for text in ours)
    return TextCheck(f"sherpa-onnx {version('sherpa-onnx')}", len(ours), same, words)


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("sherpa_onnx") is not None


def with_silence(waveform: FloatArray, spec: StreamingSpec, frontend: FrontendConfig) -> FloatArray:
    """The waveform (N,) and enough zeros after it: sherpa-onnx fills up no last window, and decodes one only
    when a frame beyond it is there."""
    shift = round(frontend.frame_shift_ms * frontend.sample_rate / 1000)
    return np.pad(waveform, (0, (2 * spec.window_frames + 4) * shift))


def texts(
    model: Path, tokens: Path, waveforms: Sequence[FloatArray], loader: str, options: dict[str, Any]
) -> list[str]:
    """The text of each waveform (N,) at `options["sample_rate"]`, heard as it is by the model that
    `OnlineRecognizer.loader` loads with `options`. Raises CheckFailed."""
    given = {"tokens": str(tokens), "model": str(model), "num_threads": 1, **options}
    with tempfile.TemporaryDirectory() as work:
        arrays, job = Path(work) / "waveforms.npz", Path(work) / "job.json"
        np.savez(arrays, **{f"a{i}": w for i, w in enumerate(waveforms)})  # type: ignore[arg-type]
        job.write_text(json.dumps({"loader": loader, "options": given, "waveforms": str(arrays)}))
        command = [sys.executable, "-m", __name__, str(job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"sherpa-onnx has not run {model.name} in {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise CheckFailed(f"sherpa-onnx cannot run {model.name} (exit code {done.returncode}): {reason}")
    heard: list[str] = json.loads(done.stdout.splitlines()[-1])
    return heard


def _main(job: dict[str, Any]) -> list[str]:
    import sherpa_onnx

    recognizer = getattr(sherpa_onnx.OnlineRecognizer, job["loader"])(**job["options"])
    with np.load(job["waveforms"], allow_pickle=False) as arrays:
        return [_text(recognizer, arrays[f"a{i}"], job) for i in range(len(arrays.files))]


def _text(recognizer: Any, waveform: FloatArray, job: dict[str, Any]) -> str:
    stream = recognizer.create_stream()
    stream.accept_waveform(job["options"]["sample_rate"], waveform)
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return str(recognizer.get_result(stream)).strip()


if __name__ == "__main__":
    print(json.dumps(_main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
