"""Our quantisers beside onnxruntime's own, on one model and the same recordings, as JSON.

    python benchmarks/quantization.py model.pt --calibration train.jsonl --eval dev.jsonl [--limit N]

`wer` in percent with the difference to fp32 on the same utterances and its paired 95 % interval in points;
`mean_abs_log_prob` is the mean |Δ log_prob| against fp32; `step_cpu_ms` is the median processor time of the
encoder's step on one thread, rounds of all artifacts interleaved: other jobs do not count. onnxruntime's
calibrators see what a stream sees, the state carried, for at most `--steps` steps: they keep every activation
of every step in memory. NNCF (`pip install nncf`) and ONNX Neural Compressor (`pip install
onnx-neural-compressor`) calibrate on the same steps where they are installed; `left_out` says which are not,
or failed. Needs no network, writes no file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edge_speech import quality
from edge_speech.backends import load_encoder
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.features import frontend_from_dict
from edge_speech.training.checkpoint import load_model
from edge_speech_tools import recordings
from edge_speech_tools.calibration import METHODS, CalibrationConfig, CalibrationSet
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.decoding import Line, decode
from edge_speech_tools.onnx_graph import quiet, unsuited_nodes
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.provenance import describe_tools, host
from edge_speech_tools.quantize import int4_weights, int8_dynamic, int8_static, int8_weights
from edge_speech_tools.recordings import Recording
from edge_speech_tools.reference import single_thread
from edge_speech_tools.streaming import windows

OP_TYPES = ("MatMul", "Gemm", "Conv")
THEIRS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# Rounds of the timing, and steps of each that only bring an artifact back into the caches.
ROUNDS = 50
WARM_STEPS = 2
Feed = dict[str, npt.NDArray[Any]]
Run = Callable[[], PassResult]


@dataclass(frozen=True)
class Heard:
    """What an artifact made of the evaluation recordings."""

    texts: list[str]
    log_probs: list[FloatArray]


def main() -> None:
    args = parse()
    loaded = load_model(args.model)
    line = Line(frontend_from_dict(loaded.frontend), loaded.tokens)
    calibration = recordings.from_manifest(args.calibration, need_text=False).recordings
    evaluation = recordings.from_manifest(args.eval).recordings[: args.limit]
    features = CalibrationSet(calibration[: args.calibration_limit], line.frontend)
    with single_thread(), tempfile.TemporaryDirectory() as folder:
        source = Source(loaded.model, loaded.model.spec, Path(folder), features)
        made, left_out = make_all(source, args.steps, args.methods)
        rows = measure(line, source.spec, {name: one for name, (one, _) in made.items()}, evaluation)
    for name, (_, build_s) in made.items():
        rows[name]["build_s"] = round(build_s, 1)
    setup = {
        "model": args.model.name,
        "calibration": {
            "manifest": args.calibration.name,
            "recordings": len(features),
            "their_steps": args.steps,
        },
        "eval": {"manifest": args.eval.name, "utterances": len(evaluation)},
        "note": args.note,
        "left_out": left_out,
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps({"host": host(), "tools": describe_tools(), **setup, "results": rows}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint, model.pt")
    parser.add_argument("--calibration", type=Path, required=True, help="manifest to measure ranges on")
    parser.add_argument("--eval", type=Path, required=True, help="manifest to measure words on")
    parser.add_argument("--limit", type=int, help="evaluate on the first N utterances")
    parser.add_argument("--calibration-limit", type=int, default=100, help="calibrate on the first N")
    parser.add_argument("--steps", type=int, default=300, help="encoder steps onnxruntime calibrates on")
    parser.add_argument("--methods", action="store_true", help="each of our calibration methods, too")
    parser.add_argument("--note", default="", help="said in the JSON: what else the machine was doing")
    return parser.parse_args()


def make_all(
    source: Source, steps: int, methods: bool
) -> tuple[dict[str, tuple[PassResult, float]], dict[str, str]]:
    """Every artifact by name, and the seconds it took to make; and peers that made none, with the reason.

    The fp32 graph comes first: others read it.
    """
    runs: dict[str, Run] = {
        "fp32": lambda: streaming_onnx.run(source),
        "ours int8-static": lambda: int8_static.run(source),
        "ours int8-dynamic": lambda: int8_dynamic.run(source),
        "ours int8-weight-only": lambda: int8_weights.run(source),
        "ours int4-weight-only": lambda: int4_weights.run(source),
        "ours int4-weight-only, groups of 64": lambda: int4_weights.run(source, int4_weights.Config(64)),
        "onnxruntime quantize_dynamic": lambda: theirs_dynamic(source),
    }
    for name in THEIRS:
        runs[f"onnxruntime quantize_static {name}"] = lambda name=name: theirs_static(source, name, steps)  # type: ignore[misc]
    if methods:
        for method in METHODS:
            runs[f"ours int8-static {method}"] = lambda method=method: int8_static.run(  # type: ignore[misc]
                source, int8_static.Config(CalibrationConfig(method))
            )
            runs[f"ours int8-static {method}, 8-bit weights"] = lambda method=method: int8_static.run(  # type: ignore[misc]
                source, int8_static.Config(CalibrationConfig(method, weight_bits=8))
            )
    made = {name: timed(name, run) for name, run in runs.items()}
    peers, left_out = run_peers(source, steps)
    return made | peers, left_out


def run_peers(source: Source, steps: int) -> tuple[dict[str, tuple[PassResult, float]], dict[str, str]]:
    """Quantisers that are no dependency of ours: what the installed ones made, why the others made none."""
    peers: dict[str, Run] = {
        "nncf": lambda: nncf_static(source, steps),
        "onnx_neural_compressor": lambda: neural_compressor_static(source, steps),
    }
    made, left_out = {}, {}
    for package, run in peers.items():
        if importlib.util.find_spec(package) is None:
            left_out[package] = "not installed"
            continue
        try:
            name = f"{package} {importlib.metadata.version(package.replace('_', '-'))}"
            made[name] = timed(name, run)
        except Exception as error:  # a peer's failure is a result, whatever its class
            left_out[package] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
    return made, left_out


def timed(name: str, run: Run) -> tuple[PassResult, float]:
    """The artifact under a file name of its own, and the seconds it took."""
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    if name == "fp32":
        return result, seconds
    own = result.path.with_name(f"{name}.onnx")
    result.path.rename(own)
    return replace(result, path=own, precision=name), seconds


def theirs_dynamic(source: Source) -> PassResult:
    """onnxruntime's dynamic quantiser as it comes, with weights of seven bits for each channel."""
    fp32, path = source.directory / streaming_onnx.FILE_NAME, source.directory / "theirs.onnx"
    with quiet():
        quantize_dynamic(fp32, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    return PassResult(path, "onnxruntime", "theirs", "built", "onnxruntime")


def theirs_static(source: Source, method: str, steps: int) -> PassResult:
    """onnxruntime's static quantiser, first and last layer and products of activations left out."""
    fp32, path = source.directory / streaming_onnx.FILE_NAME, source.directory / "theirs.onnx"
    with quiet():
        quantize_static(
            fp32,
            path,
            StreamingCalibration(fp32, source.spec, source.calibration, steps),
            calibrate_method=THEIRS[method],
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OP_TYPES),
            nodes_to_exclude=unsuited_nodes(fp32, OP_TYPES),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return PassResult(path, "onnxruntime", "theirs", "built", "onnxruntime")


def nncf_static(source: Source, steps: int) -> PassResult:
    """NNCF's `quantize`, preset mixed, the layers left out that we leave out; it sees each step's inputs."""
    import nncf
    import onnx

    fp32, path = source.directory / streaming_onnx.FILE_NAME, source.directory / "theirs.onnx"
    feeds = list(StreamingCalibration(fp32, source.spec, source.calibration, steps).feeds())
    with quiet():
        model = nncf.quantize(
            onnx.load(fp32),
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=unsuited_nodes(fp32, OP_TYPES)),
        )
    onnx.save(model, path)
    return PassResult(path, "onnxruntime", "theirs", "built", "onnxruntime")


def neural_compressor_static(source: Source, steps: int) -> PassResult:
    """ONNX Neural Compressor's static quantiser, set as onnxruntime's is."""
    import onnx
    from onnx_neural_compressor.quantization import config, quantize

    fp32, path = source.directory / streaming_onnx.FILE_NAME, source.directory / "theirs.onnx"
    reader = StreamingCalibration(fp32, source.spec, source.calibration, steps)
    settings = config.StaticQuantConfig(
        calibration_data_reader=reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(OP_TYPES),
        nodes_to_exclude=unsuited_nodes(fp32, OP_TYPES),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    with quiet():
        quantize(str(fp32), str(path), settings)
    onnx.save(onnx.load(path), path)  # it writes large weights beside the file, which would not be counted
    return PassResult(path, "onnxruntime", "theirs", "built", "onnxruntime")


class StreamingCalibration(CalibrationDataReader):  # type: ignore[misc]
    """Every step's features and state of whole recordings, the state carried by the fp32 model itself.

    A calibrator that feeds zeros for the state never sees the ranges of a running stream.
    """

    def __init__(
        self, model: Path, spec: StreamingSpec, features: Iterable[FloatArray], max_steps: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._spec, self._features, self._max_steps = spec, features, max_steps
        self.rewind()

    def get_next(self) -> Feed | None:
        """The next step's inputs, None at the end."""
        return next(self._feeds, None)

    def rewind(self) -> None:
        """From the first step again."""
        self._feeds = self.feeds()

    def feeds(self) -> Iterator[Feed]:
        """Every step's inputs."""
        steps = 0
        for features in self._features:
            state = {s.name: np.zeros(s.shape, s.dtype) for s in self._spec.state}
            for window in windows(features, self._spec):
                if steps == self._max_steps:
                    return
                steps += 1
                feed = {"features": window, **state}
                yield feed
                _, *following = self._session.run(None, feed)
                state = dict(zip(state, following, strict=True))


def measure(
    line: Line, spec: StreamingSpec, made: Mapping[str, PassResult], evaluation: tuple[Recording, ...]
) -> dict[str, dict[str, Any]]:
    """Words, log_probs, bytes and time of every artifact, by name."""
    references = [recording.text for recording in evaluation]
    heard = {name: hear(line, spec, one, evaluation) for name, one in made.items()}
    times = step_times(spec, made, CalibrationSet(evaluation, line.frontend)[0])
    want = heard["fp32"]
    fp32 = quality.score(references, want.texts)
    rows = {}
    for name, result in made.items():
        score = quality.score(references, heard[name].texts)
        rows[name] = {
            "bytes": result.path.stat().st_size,
            "smaller": round(made["fp32"].path.stat().st_size / result.path.stat().st_size, 2),
            "wer": round(score.wer, 2),
            "wer_added": round(score.wer - fp32.wer, 2),
            "wer_added_ci95": quality.difference_ci95(score, fp32),
            **differences(heard[name].log_probs, want.log_probs),
            "step_cpu_ms": round(times[name], 3),
        }
    return rows


def step_times(spec: StreamingSpec, made: Mapping[str, PassResult], features: FloatArray) -> dict[str, float]:
    """Median processor time in ms of a step on one recording's features (T, F), by name."""
    window = np.zeros((spec.window_frames, spec.num_features), np.float32)
    log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
    streams = {
        name: load_encoder(one.backend, one.path, spec).open(window, log_probs) for name, one in made.items()
    }
    chunks, taken = list(windows(features, spec))[: WARM_STEPS + 4], {name: [] for name in made}  # type: ignore[var-annotated]
    for _ in range(ROUNDS):
        for name, stream in streams.items():
            for i, chunk in enumerate(chunks):
                window[:] = chunk[0]
                start = time.thread_time()
                stream.step()
                if i >= WARM_STEPS:
                    taken[name].append(time.thread_time() - start)
    return {name: 1000 * float(np.median(seconds)) for name, seconds in taken.items()}


def hear(line: Line, spec: StreamingSpec, result: PassResult, evaluation: tuple[Recording, ...]) -> Heard:
    encoder = load_encoder(result.backend, result.path, spec)
    decoded = list(decode(line, encoder, evaluation, keep_log_probs=True))
    return Heard([d.text for d in decoded], [d.log_probs for d in decoded if d.log_probs is not None])


def differences(got: list[FloatArray], want: list[FloatArray]) -> dict[str, float]:
    """Over all frames of all recordings (T, V)."""
    one, other = np.concatenate(got), np.concatenate(want)
    return {
        "mean_abs_log_prob": round(float(np.abs(one - other).mean()), 4),
        "kl_divergence": round(float((np.exp(other) * (other - one)).sum(axis=1).mean()), 6),
        "argmax_agreement": round(float((one.argmax(axis=1) == other.argmax(axis=1)).mean()), 4),
    }


if __name__ == "__main__":
    main()
