"""A voice activity detector that is a network, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import mono_float32

_WINDOWS = {16000: 512, 8000: 256}  # samples by sample rate
_CONTEXT = 8  # a window is preceded by an eighth of itself
_STATE = (2, 1, 128)
_HYSTERESIS = 0.15  # silero-vad's VADIterator: speech goes on until this far below the threshold


class OnnxVad:
    """Speech or not, window by window of 32 ms, by a network with silero-vad's interface (version 5 on).

    The weights are yours: `path` is, for example, `silero_vad/data/silero_vad.onnx` of the PyPI package
    silero-vad (https://github.com/snakers4/silero-vad, MIT). Any graph will do with inputs `input` (1, N)
    float32, `state` (2, 1, 128) float32 and, if it likes, `sr` int64; outputs `output`, the probability of
    speech, and `stateN`. N is the window, 512 samples at 16 kHz or 256 at 8 kHz, after the last 64 or 32
    samples of the one before, which silero-vad wants; a graph that fixes N gets that many.

    Speech begins at a probability of `threshold` and ends 0.15 below it. Needs onnxruntime. Raises InputError
    on a file that cannot be loaded or has another interface.
    """

    def __init__(self, path: Path | str, sample_rate: int = 16000, threshold: float = 0.5) -> None:
        if sample_rate not in _WINDOWS:
            raise InputError(f"sample_rate is {sample_rate!r}; allowed: 8000 or 16000")
        if not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise InputError(f"threshold is {threshold!r}; allowed: a probability above 0 and below 1")
        self.sample_rate, self.threshold = sample_rate, threshold
        self._window = _WINDOWS[sample_rate]
        self._session = _open(path)
        self._context_size = _context_size(path, self._session, self._window)
        self._waiting: FloatArray = np.zeros(0, np.float32)
        self._decisions: list[bool] = []
        self._has_rate = "sr" in (node.name for node in self._session.get_inputs())
        self.reset()

    @property
    def frame_ms(self) -> float:
        """What one decision is about: 32 ms."""
        return 1000.0 * self._window / self.sample_rate

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Add `samples` (N,), float in [-1, 1] or int16, mono.

        Raises InputError, and consumes nothing, on other samples, NaN or infinity and on another rate.
        """
        if sample_rate != self.sample_rate:
            raise InputError(f"sample_rate is {sample_rate}; allowed: {self.sample_rate}; resample first")
        added = mono_float32(samples)
        if not np.isfinite(added).all():
            raise InputError("samples have NaN or infinity; allowed: finite numbers")
        self._waiting = np.concatenate([self._waiting, added])
        windows = (len(self._waiting) - self._context_size) // self._window
        for start in range(0, windows * self._window, self._window):
            self._decide(self._waiting[start : start + self._context_size + self._window])
        self._waiting = self._waiting[windows * self._window :]

    def read(self) -> npt.NDArray[np.bool_]:
        """Whether there is speech in each whole window since the last read: (T,)."""
        decisions = np.array(self._decisions, dtype=np.bool_)
        self._decisions.clear()
        return decisions

    def reset(self) -> None:
        """Forget the waveform and the network's state."""
        self._state = np.zeros(_STATE, np.float32)
        self._waiting = np.zeros(self._context_size, np.float32)
        self._decisions.clear()
        self._speech = False

    def _decide(self, window: FloatArray) -> None:
        feeds: dict[str, npt.NDArray[Any]] = {"input": window[None], "state": self._state}
        if self._has_rate:
            feeds["sr"] = np.array(self.sample_rate, np.int64)
        output, self._state = self._session.run(["output", "stateN"], feeds)
        self._speech = bool(output.item() >= self.threshold - (_HYSTERESIS if self._speech else 0.0))
        self._decisions.append(self._speech)


def _open(path: Path | str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: onnxruntime cannot load it ({reason}); give a silero-vad ONNX file"
        ) from None
    inputs, outputs = (
        {node.name for node in nodes} for nodes in (session.get_inputs(), session.get_outputs())
    )
    if not {"input", "state"} <= inputs <= {"input", "state", "sr"} or not {"output", "stateN"} <= outputs:
        raise InputError(
            f"{path}: has inputs {', '.join(sorted(inputs))} and outputs {', '.join(sorted(outputs))}; "
            "allowed: silero-vad's since version 5, input, state, sr and output, stateN"
        )
    return session


def _context_size(path: Path | str, session: Any, window: int) -> int:
    """Samples before the window: what the graph's own shape leaves, otherwise silero-vad's."""
    shape = next(node.shape for node in session.get_inputs() if node.name == "input")
    if not isinstance(shape[-1], int):
        return window // _CONTEXT
    if shape[-1] < window:
        raise InputError(f"{path}: takes {shape[-1]} samples; allowed: {window} or more at this sample rate")
    return int(shape[-1]) - window
