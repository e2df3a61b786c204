"""What the steps of `optimize` read: checked arguments, the loaded model, the recordings, the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_speech.bundle import sha256_of
from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.quality import require_words
from edge_speech.target import Target
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools import recordings
from edge_speech_tools.cache import Cache
from edge_speech_tools.contract import check_contract, require_streaming
from edge_speech_tools.decoding import Line
from edge_speech_tools.device_bench import DeviceResult, read_device_bench
from edge_speech_tools.keys import Keys
from edge_speech_tools.language_model import Fit, check_fit, oov_line
from edge_speech_tools.onnx_model import content_of, load_any
from edge_speech_tools.passes import Pass
from edge_speech_tools.plan import OptimizeConfig, Plan
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import RecordingSet
from edge_speech_tools.reference import TorchEncoder


@dataclass(frozen=True)
class Job:
    """Everything the steps read; `keys` says what each depends on, `cache` keeps what they made.

    `device_bench` has what was measured on the device, by `backend/precision`; a chunk lasts `chunk_ms`.
    `given` is the job of the model that words are counted against, where another was put in its place.
    """

    config: OptimizeConfig
    target: Target
    plan: Plan
    passes: Mapping[str, Pass]
    loaded: LoadedModel
    spec: StreamingSpec
    line: Line
    fit: Fit | None
    evaluation: RecordingSet | None
    calibration: RecordingSet | None
    progress: Progress
    cache: Cache
    keys: Keys
    chunk_ms: float
    device_bench: dict[str, DeviceResult]
    given: Job | None = None

    @property
    def compared(self) -> RecordingSet:
        """What parity and latency are measured on."""
        return self.keys.compared

    @property
    def reference(self) -> TorchEncoder:
        """The PyTorch model as an engine."""
        return TorchEncoder(self.loaded.model, self.spec)


def load_job(
    config: OptimizeConfig, target: Target, plan: Plan, passes: Mapping[str, Pass], cache: Cache
) -> Job:
    """Read and check everything that is given. Raises InputError."""
    if not config.accuracy_budget >= 0:
        raise InputError(
            f"the accuracy budget is {config.accuracy_budget:g}; it must be 0 or more points of WER"
        )
    decoder, evaluation = config.decoder.over(None), _evaluation(config)
    loaded = require_streaming(config.model, load_any(config.model))
    progress = Progress(config.quiet)
    if loaded.config.get("head") == "linear":
        raise InputError(
            f"{config.model} has a linear head, which gives numbers; a bundle decodes log_probs, so train "
            "one with model.head = 'log_softmax'"
        )
    frontend, calibration = frontend_from_dict(loaded.frontend), _calibration(config)
    spec = check_contract(loaded.model, len(loaded.tokens), frontend.num_features)
    chunk_ms = spec.chunk_frames * frontend.frame_shift_ms
    return Job(
        config=config,
        target=target,
        plan=plan,
        passes=passes,
        loaded=loaded,
        spec=spec,
        line=Line(frontend, loaded.tokens, decoder),
        fit=_fit(decoder, loaded.tokens, evaluation, progress),
        evaluation=evaluation,
        calibration=calibration,
        progress=progress,
        cache=cache,
        keys=Keys(
            checkpoint=sha256_of(content_of(config.model)),
            recipe=target.recipe,
            passes=passes,
            calibration=calibration,
            compared=evaluation or calibration or recordings.synthetic(frontend.sample_rate),
            evaluation=evaluation,
            decoder=decoder,
            decoder_files=(config.decoder.lm, config.decoder.hotwords),
        ),
        chunk_ms=chunk_ms,
        device_bench=read_device_bench(config.device_bench, chunk_ms, plan.keys(passes)),
    )


def _fit(
    decoder: CtcConfig | None, tokens: list[str], evaluation: RecordingSet | None, progress: Progress
) -> Fit | None:
    """Before minutes of work: does the decoder take its config, and do the language model's words fit?"""
    if decoder is None:
        return None
    CtcPrefixBeam(tokens, decoder)
    if decoder.lm is None:
        return None
    texts = [recording.text for recording in evaluation.recordings] if evaluation else []
    fit = check_fit(decoder.lm, decoder.lm_level, tokens, texts)
    if fit.warning():
        progress.say(f"decoder  {fit.warning()}")
    if fit.on_texts is not None:
        progress.say(f"decoder  {oov_line(fit.on_texts)}")
    return fit


def _evaluation(config: OptimizeConfig) -> RecordingSet | None:
    if config.eval_manifest is None:
        return None
    found = recordings.from_manifest(config.eval_manifest)
    require_words([recording.text for recording in found.recordings])
    return found


def _calibration(config: OptimizeConfig) -> RecordingSet | None:
    path: Path | None = config.calibration_manifest
    return recordings.from_manifest(path, need_text=False) if path else None
