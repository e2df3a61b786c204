"""The prediction: its counts against torch's own counter and a count by hand, its arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edge_speech.encoder import StreamingSpec, TensorSpec
from edge_speech.errors import InputError
from edge_speech.target import Target, list_targets, load_target
from edge_speech.training import models
from edge_speech_tools import pipeline, reference
from edge_speech_tools.device_bench import read_device_bench
from edge_speech_tools.passes import PassResult
from edge_speech_tools.prediction import Artifact, Work, count_work, moved_bytes, predict, section
from edge_speech_tools.sensitivity import layer_operations
from test_optimize import config_of, write_model

ARCHITECTURES = sorted(set(models.available()) - {"wav2vec2"})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with reference.single_thread():
        yield


def inputs(model: Any) -> list[torch.Tensor]:
    spec = model.spec
    return [torch.zeros(1, spec.window_frames, spec.num_features), *model.initial_state(1)]


CONFIGS = [(name, {}) for name in ARCHITECTURES] + [("crnn", {"cell": "lstm"})]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(("name", "changes"), CONFIGS)
def test_products_are_as_many_as_torch_counts(name: str, changes: dict[str, Any]) -> None:
    """torch's counter does not know oneDNN's recurrent layer: without oneDNN it sees the products in it."""
    torch.manual_seed(0)
    model: Any = models.build(name, {"vocab_size": 11, **changes}).eval()
    counted = count_work(model, model.spec)
    with (
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        model(*inputs(model))
    assert 2 * counted.multiply_adds == counter.get_total_flops()
    assert counted.multiply_adds >= sum(layer_operations(model, model.spec).values())


class Tiny(torch.nn.Module):
    """A convolution of 2 to 3 channels over 4 frames, 3 × 5 outputs, and a carry that is added."""

    spec = StreamingSpec(4, 0, 1, 2, 5, 0.0, (TensorSpec("carry", (1, 4, 5), "float32"),))

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(2, 3, 1, bias=False)
        self.linear = torch.nn.Linear(3, 5)

    def initial_state(self, batch_size: int) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(batch_size, 4, 5),)

    def forward(self, features: torch.Tensor, carry: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.linear(self.convolution(features.transpose(1, 2)).transpose(1, 2))
        scores = hidden @ hidden.transpose(1, 2) @ hidden + carry
        return scores, scores * 0.5


def test_a_count_by_hand() -> None:
    work = count_work(Tiny(), Tiny.spec)
    # convolution, linear, scores (4, 4) by 5, back to (4, 5) by 4
    assert work.multiply_adds == 4 * 3 * 2 + 4 * 5 * 3 + 4 * 4 * 5 + 4 * 5 * 4
    assert work.state_values == 20
    # read and written: convolution, linear, its bias, scores, back, sum, half
    values = [8 + 12, 12 + 20, 20 + 20, 20 + 20 + 16, 16 + 20 + 20, 20 + 20 + 20, 20 + 20]
    assert (work.activation_values, work.operators) == (sum(values), len(values))


BOARD = load_target("jetson-orin")
WORK = Work(multiply_adds=10**9, activation_values=10**6, state_values=10**5, operators=500)


@pytest.mark.parametrize(
    ("artifact", "bound", "compute_ms", "memory_ms", "overhead_ms"),
    [
        # 2e9 operations at 35.2e9 a second of one core; file, state and activations at 204.8 GB/s
        (Artifact("onnxruntime", "fp32", 10**7, 100), "compute", 2e3 / 35.2, 14.8 / 204.8, 0.1),
        (Artifact("onnxruntime", "int8-static", 10**7, 100), "compute", 2e3 / 140.8, 14.8 / 204.8, 0.1),
        (Artifact("onnxruntime", "int4-weight-only", 10**7, 100), "compute", 2e3 / 35.2, 14.8 / 204.8, 0.1),
        (Artifact("tensorrt", "fp16", 10**7, 100), "overhead", 2e3 / 42598.4, 12.8 / 204.8, 0.5),
        (Artifact("tensorrt", "fp16", 10**9, 10), "memory", 2e3 / 42598.4, 1002.8 / 204.8, 0.05),
    ],
)
def test_the_arithmetic(
    artifact: Artifact, bound: str, compute_ms: float, memory_ms: float, overhead_ms: float
) -> None:
    found = predict(WORK, artifact, BOARD, BOARD.power_modes[0], chunk_ms=160.0)
    assert found.bound == bound
    assert found.compute_ms == pytest.approx(compute_ms, abs=1e-4)
    assert found.memory_ms == pytest.approx(memory_ms, abs=1e-4)
    assert found.overhead_ms == pytest.approx(overhead_ms, abs=1e-4)
    assert found.latency_ms == pytest.approx(max(compute_ms, memory_ms) + overhead_ms, abs=2e-4)
    assert found.rtf == pytest.approx(found.latency_ms / 160, abs=2e-6)


@pytest.mark.parametrize("target", list_targets(), ids=lambda t: t.name)
def test_every_target_predicts_every_precision(target: Target) -> None:
    for backend in target.backends:
        for precision in target.precisions:
            artifact = Artifact(backend, precision, 10**6, 100)
            found = [predict(WORK, artifact, target, mode, 160.0) for mode in target.power_modes]
            assert all(0 < one.latency_ms < 1000 for one in found)
            assert moved_bytes(WORK, artifact) > 10**6


def test_the_reports_section_pairs_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "a.ptl").write_bytes(bytes(1000))
    made = [PassResult(tmp_path / "a.ptl", "onnxruntime", "fp32", "built", None)]
    times = {"onnxruntime/fp32": {"latency_ms": 3.0, "rtf": 0.02, "where": "device"}}
    found = section(BOARD, WORK, made, times, 160.0)
    (entry,) = found["artifacts"]
    assert entry["measured"] == times["onnxruntime/fp32"]
    assert entry["nodes"] == WORK.operators
    assert [mode["mode"] for mode in entry["modes"]] == [mode.name for mode in BOARD.power_modes]
    assert found["unconfirmed"] == list(BOARD.unconfirmed)


# -- what the device measured -------------------------------------------------------------------------------

RESULT = {
    "backend": "onnxruntime", "precision": "fp32", "threads": 1, "audio_s": 20.0, "rtf": 0.02,
    "chunk_ms": 160.0, "chunk_latency_ms": {"p50": 3.0, "p95": 4.0, "p99": 5.0, "max": 6.0},
    "first_partial_ms": None, "final_latency_ms": 3.0, "deadline_misses": 0, "peak_rss_mib": 80.5,
    "load_ms": 50.0, "artifact_bytes": 1000,
}  # fmt: skip
KNOWN = ["onnxruntime/fp32", "onnxruntime/int8-dynamic"]


def bench_file(path: Path, *results: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"results": [{**RESULT, **result} for result in results]}))
    return path


def test_a_device_bench_is_read(tmp_path: Path) -> None:
    files = [
        bench_file(tmp_path / "fp32.json", {}),
        bench_file(tmp_path / "int8.json", {"precision": "int8-dynamic", "rtf": 0.01}),
    ]
    found = read_device_bench(files, 160.0, KNOWN)
    assert set(found) == set(KNOWN)
    assert (found[KNOWN[0]].latency_ms, found[KNOWN[0]].latency_p99_ms, found[KNOWN[0]].bytes) == (
        3.0,
        5.0,
        1000,
    )
    assert read_device_bench([], 160.0, KNOWN) == {}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not JSON"),
        ("[]", "expected a table"),
        ("{}", "no results"),
        ('{"results": 3}', "list of at most"),
        (json.dumps({"results": [{**RESULT, "chunk_ms": 320.0}]}), "'chunk_ms' must be 160.*another model"),
        (json.dumps({"results": [{**RESULT, "backend": "tensorrt"}]}), "tensorrt/fp32, none of the planned"),
        (json.dumps({"results": [RESULT, RESULT]}), "onnxruntime/fp32 was given before"),
        (json.dumps({"results": [{**RESULT, "chunk_latency_ms": {"p50": -1, "p99": 1}}]}), "'p50'"),
        (json.dumps({"results": [{**RESULT, "chunk_latency_ms": None}]}), "chunk_latency_ms"),
        (json.dumps({"results": [{**RESULT, "rtf": "fast"}]}), "'rtf'"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_odd_bench_files(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(InputError, match=match) as error:
        read_device_bench([tmp_path / "bench.json"], 160.0, KNOWN)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_device_bench([tmp_path / "nowhere.json"], 160.0, KNOWN)


def test_the_choice_for_a_remote_device_is_by_what_it_measured(digits: Path, tmp_path: Path) -> None:
    """On this host nothing is known of a Pi's speed: fp32 is kept unless the Pi said that int8 is faster."""
    model = write_model(tmp_path / "model.pt")
    config = config_of(
        model,
        tmp_path / "bundle",
        "raspberry-pi-5",
        eval_manifest=digits / "clips.jsonl",
        accuracy_budget=1000.0,
        cache=tmp_path / "cache",
        force=True,
    )
    first = pipeline.optimize(config).report
    kept = {a["precision"]: a["bytes"] for a in first["artifacts"]}
    assert [a["precision"] for a in first["artifacts"] if a["kept"]] == ["fp32"]
    assert {e["measured"] is None for e in first["prediction"]["artifacts"]} == {
        not first["performance"]["host_is_target_arch"]
    }
    chunk_ms = first["prediction"]["chunk_ms"]
    times = {"fp32": 3.0, "int8-dynamic": 2.0}
    results = [
        {"precision": p, "chunk_ms": chunk_ms, "artifact_bytes": kept[p],
         "chunk_latency_ms": {"p50": t, "p95": t, "p99": 100 * t, "max": 100 * t}}
        for p, t in times.items()
    ]  # fmt: skip
    bench = bench_file(tmp_path / "pi.json", *results)
    second = pipeline.optimize(replace(config, device_bench=(bench,))).report
    assert [a["precision"] for a in second["artifacts"] if a["kept"]] == ["int8-dynamic"]
    assert any("2.000 ms per chunk against 3.000" in reason for reason in second["decision"])
    assert any("over the target's budget" in r and "200.000 ms" in r for r in second["decision"])
    assert "device" in [step["action"] for step in second["plan"]["steps"]]
    measured = {e["precision"]: e["measured"] for e in second["prediction"]["artifacts"]}
    assert measured["fp32"] == {"latency_ms": 3.0, "rtf": 0.02, "where": "device"}
    assert "on the device" in (config.output / "report.html").read_text(encoding="utf-8")
    assert not [f for f in second["findings"] if f["check"] == "device-bench"]
