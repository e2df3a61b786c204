"""What would go wrong later, found in seconds: of the model, of its graphs, of the recordings.

What breaks the encoder contract (zero-sized caches, shapes not those of the spec) contract.py refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from edge_speech.bundle import sha256_of
from edge_speech.encoder import StreamingSpec
from edge_speech.engine_recipe import version_of
from edge_speech.target import Target, read_toml
from edge_speech_tools.convert.onnx import example_features
from edge_speech_tools.device_bench import DeviceResult
from edge_speech_tools.passes import PassResult
from edge_speech_tools.recordings import Recording, RecordingSet

ERROR, WARNING = "error", "warning"
# Steps before and after a state is disturbed: enough for a mask that hides what lies far back.
WARM_STEPS, WATCHED_STEPS = 4, 8
# Ranges are extremes: fewer voices and levels than some two minutes hold, and the first louder one clips.
LEAST_CALIBRATION_S = 120.0
# Share of words whose correctness a good int8 model changes, either way; what the interval of the difference
# of two word error rates on the same words rests on.
CHANGED_WORDS = 0.02


@dataclass(frozen=True)
class Finding:
    """`severity` is "error" (the job ends) or "warning"; `remedy` is the next step."""

    check: str
    severity: str
    message: str
    remedy: str

    def as_json(self) -> dict[str, str]:
        """Plain data for reports."""
        return asdict(self)

    def line(self) -> str:
        """One line for people."""
        return f"{self.severity}: {self.message}; {self.remedy}"


# -- the model ----------------------------------------------------------------------------------------------


def lint_model(model: torch.nn.Module, spec: StreamingSpec, tiles: Mapping[str, int]) -> list[Finding]:
    """State that is not read or not renewed, widths off the largest of the target's `tiles`."""
    return [*lint_state(model, spec), *lint_tiles(model, tiles)]


def lint_state(model: torch.nn.Module, spec: StreamingSpec) -> list[Finding]:
    """Each state is disturbed in the middle of a stream: log_probs must notice within some steps."""
    found, initial = [], tuple(model.initial_state(1))  # type: ignore[operator]
    with torch.inference_mode():
        state = initial
        for step in range(WARM_STEPS):
            _, state = _step(model, spec, step, state)
        for index, tensor in enumerate(spec.state):
            if torch.equal(state[index], initial[index]):
                found.append(_baked(tensor.name, "is still zeros after some steps: it is not renewed"))
            elif not _is_heard(model, spec, state, index):
                found.append(_baked(tensor.name, "changes nothing in log_probs: it is not read"))
    return found


def _baked(name: str, what: str) -> Finding:
    return Finding(
        "baked-state",
        ERROR,
        f"state {name} {what}",
        "let forward compute with its state arguments and return the next state, or drop it from the spec",
    )


def _is_heard(
    model: torch.nn.Module, spec: StreamingSpec, state: tuple[torch.Tensor, ...], index: int
) -> bool:
    other = tuple(_disturbed(t) if i == index else t for i, t in enumerate(state))
    for step in range(WATCHED_STEPS):
        want, state = _step(model, spec, step, state)
        got, other = _step(model, spec, step, other)
        if not torch.equal(want, got):
            return True
    return False


def _disturbed(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros_like(tensor)
    return tensor + 1 + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))


def _step(
    model: torch.nn.Module, spec: StreamingSpec, seed: int, state: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    features = example_features(spec) * (1 + seed % 3) - seed
    log_probs, *following = model(features, *state)
    return log_probs, tuple(following)


def lint_tiles(model: torch.nn.Module, tiles: Mapping[str, int]) -> list[Finding]:
    """Layers that read a width which leaves part of the multiplying units idle."""
    tile = max(tiles.values(), default=1)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv1d)]
    widths = {name: _inner_width(layer) for name, layer in layers}
    off = [f"{name} ({width})" for name, width in widths.items() if width % tile]
    if not off:
        return []
    shown = ", ".join(off[:3]) + (f" and {len(off) - 3} more" if len(off) > 3 else "")
    return [
        Finding(
            "tile",
            WARNING,
            f"a width that is no multiple of {tile} is read by {shown}",
            f"choose widths and pruning ratios that leave multiples of {tile} (`prune --tile {tile}`)",
        )
    ]


def _inner_width(layer: torch.nn.Linear | torch.nn.Conv1d) -> int:
    """What a row of the product sums over; grouped convolutions are no matrix products."""
    if isinstance(layer, torch.nn.Linear):
        return layer.in_features
    return layer.in_channels if layer.groups == 1 else 0


# -- the graphs ---------------------------------------------------------------------------------------------


def lint_graphs(results: Sequence[PassResult], recipe: Mapping[str, Any]) -> list[Finding]:
    """Dynamic shapes, and operators that a backend lacks, of every ONNX artifact.

    `recipe` is the target's, which names the version of a backend.
    """
    graphs = [result for result in results if result.path.suffix == ".onnx"]
    return [f for r in graphs for f in lint_graph(r.path, r.backend, recipe.get(r.backend))]


def lint_graph(path: Path, backend: str, version: str | None = None) -> list[Finding]:
    """One graph for one backend, of its newest version unless another is named."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    found, values = [], [*graph.input, *graph.output, *graph.value_info]
    dynamic = [v.name for v in values if _is_dynamic(v)]
    if dynamic:
        found.append(
            Finding(
                "dynamic-shape",
                WARNING,
                f"{path.name} has {len(dynamic)} values of unknown shape, such as {dynamic[0]}",
                "keep shapes free of the data (no nonzero, no masks as indices): boards plan memory ahead",
            )
        )
    tables = operators_lacking().get(backend, [])
    return [*found, *(_lint_operators(path, model, backend, version, tables) if tables else ())]


def _lint_operators(
    path: Path, model: onnx.ModelProto, backend: str, version: str | None, tables: list[dict[str, Any]]
) -> Iterator[Finding]:
    """An operator that no version has is an error; one that this version alone lacks is left to the board."""
    table = table_of(tables, version)
    named, used = f"{backend} {table['version']}", {node.op_type for node in model.graph.node}
    never = sorted(used & set(table["lacks"]) & set(tables[-1]["lacks"]))
    if never:
        yield Finding(
            "operator",
            ERROR,
            f"{named} lacks {', '.join(never)}, which {path.name} uses ({table['source']})",
            "write the model without it, or choose another backend with --backends",
        )
    later = sorted(used & set(table["lacks"]) - set(never))
    opset = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if opset > table["opset"]:
        later.append(f"opset {opset}")
    if later:
        yield Finding(
            "operator",
            WARNING,
            f"{named} does not document {', '.join(later)}, which {path.name} uses ({table['source']})",
            "use a newer release on the board, or the bundle's next engine will run there",
        )


def table_of(tables: list[dict[str, Any]], version: str | None) -> dict[str, Any]:
    """The last table that is not above `version`, the first where all are; the newest without a version."""
    if version is None:
        return tables[-1]
    reached = [table for table in tables if version_of(table["version"]) <= version_of(version)]
    return reached[-1] if reached else tables[0]


def _is_dynamic(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return any(not dim.HasField("dim_value") for dim in tensor.shape.dim)


def operators_lacking() -> dict[str, Any]:
    """By backend, tables from the oldest version to the newest: `version`, `opset`, `source`, `lacks`."""
    return read_toml(Path(__file__).parent / "data" / "operators.toml")


# -- the device's limits ------------------------------------------------------------------------------------


def lint_limits(
    results: Sequence[PassResult], target: Target, on_device: Mapping[str, DeviceResult]
) -> list[Finding]:
    """Artifacts that are too large for the target, or that needed too much memory there."""
    found = []
    for result in results:
        size_mib = result.path.stat().st_size / (1 << 20)
        if size_mib > target.artifact_limit_mib:
            found.append(
                _over("artifact-size", f"{result.key} has {size_mib:.1f} MiB", target.artifact_limit_mib)
            )
        needed_mib, how = size_mib, "its weights alone take"
        if result.key in on_device:
            needed_mib, how = on_device[result.key].peak_rss_mib, "on the device it took"
            found += list(_other_artifact(result, on_device[result.key]))
        if needed_mib > target.memory_limit_mib:
            found.append(
                _over("memory", f"{result.key}: {how} {needed_mib:.1f} MiB", target.memory_limit_mib)
            )
    return found


def _over(check: str, what: str, limit_mib: float) -> Finding:
    return Finding(
        check,
        WARNING,
        f"{what}, the target's limit is {limit_mib:g} MiB",
        "prune the model (`edge-speech prune`) or take a narrower --precision",
    )


def _other_artifact(result: PassResult, measured: DeviceResult) -> Iterator[Finding]:
    made = result.path.stat().st_size
    if measured.bytes != made:
        yield Finding(
            "device-bench",
            WARNING,
            f"{result.key} had {measured.bytes} bytes when the device timed it, now it has {made}",
            "run `edge-speech bench` on the device with this bundle",
        )


# -- the recordings -----------------------------------------------------------------------------------------


def lint_recordings(
    calibration: RecordingSet | None, evaluation: RecordingSet | None, accuracy_budget: float
) -> list[Finding]:
    """Sets too small for what they decide, and sets that overlap."""
    found = []
    if calibration is not None:
        found += list(_small_calibration(calibration))
    if evaluation is not None:
        found += list(_small_evaluation(evaluation, accuracy_budget))
    if calibration is not None and evaluation is not None:
        found += list(_overlap(calibration, evaluation))
    return found


def _small_calibration(calibration: RecordingSet) -> Iterator[Finding]:
    seconds = 0.0
    for recording in calibration.recordings:
        seconds += _duration_s(recording)
        if seconds >= LEAST_CALIBRATION_S:
            return
    yield Finding(
        "calibration-size",
        WARNING,
        f"{calibration.name} holds {seconds:.0f} s of audio, less than {LEAST_CALIBRATION_S:.0f} s: ranges "
        "of so few voices and levels are soon exceeded",
        "calibrate on some minutes like those of use",
    )


def _duration_s(recording: Recording) -> float:
    if recording.duration_s is not None:
        return recording.duration_s
    samples, sample_rate = recording.read()
    return len(samples) / sample_rate


def _small_evaluation(evaluation: RecordingSet, budget: float) -> Iterator[Finding]:
    """Paired words: the difference's deviation is sqrt(share of changed words / words)."""
    words = sum(len(recording.text.split()) for recording in evaluation.recordings)
    reach = 196.0 * math.sqrt(CHANGED_WORDS / max(1, words))
    if reach <= budget or not words:
        return
    needed = f"{math.ceil(CHANGED_WORDS * (196.0 / budget) ** 2)} words" if budget > 0 else "a budget above 0"
    yield Finding(
        "evaluation-size",
        WARNING,
        f"{evaluation.name} has {words} words: one is {100 / words:.2g} points, and with {CHANGED_WORDS:.0%} "
        f"of them changed a difference is known to ±{reach:.2g} points, more than the budget of {budget:g}",
        f"to judge that budget give {needed}",
    )


def _overlap(calibration: RecordingSet, evaluation: RecordingSet) -> Iterator[Finding]:
    shared = sorted(same_audio(calibration.recordings, evaluation.recordings))
    if not shared:
        return
    yield Finding(
        "overlap",
        WARNING,
        f"{len(shared)} recordings of {evaluation.name} are also in {calibration.name}, such as {shared[0]}",
        "calibrate on other recordings: on these the ranges fit better than on what is to come",
    )


def same_audio(some: Sequence[Recording], others: Sequence[Recording]) -> set[str]:
    """Names of the `others` that are among `some`: the same file, or files of the same content."""
    files = {r.path.resolve(): r.part for r in some if r.path is not None}
    parts = {(r.path.resolve(), r.part) for r in some if r.path is not None}
    sizes = {path.stat().st_size for path in files}
    hashes: set[tuple[str, str]] | None = None
    shared = set()
    for recording in others:
        if recording.path is None:
            continue
        path = recording.path.resolve()
        if (path, recording.part) in parts:
            shared.add(recording.name)
        elif path not in files and path.stat().st_size in sizes:
            hashes = hashes or {(sha256_of(p), part) for p, part in parts}
            if (sha256_of(path), recording.part) in hashes:
                shared.add(recording.name)
    return shared
