"""How near the prediction comes on this host: predicted and measured time of an encoder step, as JSON.

    python benchmarks/prediction.py [--target NAME …] [-o FILE]

Every artifact of both example models that runs here and needs no recordings, on one thread, steps of all of
them interleaved. `least_ms` is the shortest: on a shared machine the median is its neighbours'. `overhead_us`
is what a node costs here: a chain of small ones (reshape, transpose, add, multiply of 8 × 144 values), the
difference between 500 and 100 of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_speech.backends import load_encoder
from edge_speech.features import frontend_from_dict
from edge_speech.target import load_target
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech_tools.passes import Source, load_passes
from edge_speech_tools.prediction import artifact_of, count_work, predict
from edge_speech_tools.provenance import describe_tools, host
from edge_speech_tools.reference import single_thread

EXAMPLES = Path(__file__).parent.parent / "examples"
MODELS = ("english_small", "digits")
TARGETS = ("linux-x86_64", "linux-x86_64-vnni")
BACKENDS = ("onnxruntime", "torchscript_mobile")
ROUNDS, SHORT, LONG = 200, 100, 500
SHAPE = (1, 8, 144)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", action="append", help=f"predict for it (default: {', '.join(TARGETS)})")
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON besides printing it")
    args = parser.parse_args()
    with single_thread(), tempfile.TemporaryDirectory() as folder:
        results = [r for name in MODELS for r in measure(name, Path(folder), args.target or TARGETS)]
        overhead = overhead_us()
    text = json.dumps(
        {"host": host(), "tools": describe_tools(), "overhead_us": overhead, "results": results}, indent=1
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


def measure(name: str, folder: Path, targets: list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
    """Predictions for each target and the time of a step, of each artifact of an example."""
    loaded = load_model(EXAMPLES / name / "model.pt")
    passes = [p for p in load_passes().values() if p.BACKEND in BACKENDS and not p.NEEDS_CALIBRATION]
    (folder / name).mkdir()
    source = Source(loaded.model, loaded.model.spec, folder / name)  # type: ignore[arg-type]
    made = [p.run(source) for p in sorted(passes, key=lambda p: len(p.NEEDS))]
    steps = {result.key: step_of(result.backend, result.path, loaded) for result in made}
    least = least_ms(steps)
    work, chunk_ms = count_work(loaded.model, source.spec), chunk_of(loaded)
    found = []
    for result in made:
        artifact = artifact_of(result, work)
        entry = {
            "model": name,
            "artifact": result.key,
            "nodes": artifact.nodes,
            "least_ms": least[result.key],
        }
        for target in map(load_target, targets):
            if result.backend in target.overhead_us:
                best = predict(work, artifact, target, target.power_modes[0], chunk_ms)
                ratio = round(best.latency_ms / least[result.key], 2)
                entry[target.name] = {"latency_ms": best.latency_ms, "bound": best.bound, "ratio": ratio}
        found.append(entry)
    return found


def chunk_of(loaded: LoadedModel) -> float:
    frame_shift_ms: float = frontend_from_dict(loaded.frontend).frame_shift_ms
    return int(loaded.model.spec.chunk_frames) * frame_shift_ms  # type: ignore[union-attr, arg-type]


def step_of(backend: str, path: Path, loaded: LoadedModel) -> Callable[[], object]:
    spec: Any = loaded.model.spec
    features = (
        np.random.default_rng(0).normal(size=(spec.window_frames, spec.num_features)).astype(np.float32)
    )
    log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
    return load_encoder(backend, path, spec).open(features, log_probs).step


def least_ms(steps: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest of each, rounds of all interleaved."""
    times: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(ROUNDS):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            times[key].append(time.perf_counter() - start)
    return {key: round(1e3 * min(each), 4) for key, each in times.items()}


def overhead_us() -> dict[str, float]:
    """Microseconds a node, by backend."""
    chains = {"onnxruntime": onnx_chain, "torchscript_mobile": torch_chain}
    least = least_ms({f"{name} {n}": make(n) for name, make in chains.items() for n in (SHORT, LONG)})
    return {
        name: round(1e3 * (least[f"{name} {LONG}"] - least[f"{name} {SHORT}"]) / (LONG - SHORT), 3)
        for name in chains
    }


def onnx_chain(count: int) -> Callable[[], object]:
    rows, width = SHAPE[1:]
    turned, small = np.array([1, width, rows]), np.full(SHAPE, 0.5, np.float32)
    nodes, value = [], "x"
    for i in range(0, count, 4):
        nodes.append(helper.make_node("Reshape", [value, "turned"], [f"a{i}"]))
        nodes.append(helper.make_node("Transpose", [f"a{i}"], [f"b{i}"], perm=[0, 2, 1]))
        nodes.append(helper.make_node("Add", [f"b{i}", "small"], [f"c{i}"]))
        nodes.append(helper.make_node("Mul", [f"c{i}", "small"], [f"d{i}"]))
        value = f"d{i}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", value)]
    constants = [numpy_helper.from_array(turned, "turned"), numpy_helper.from_array(small, "small")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": np.zeros(SHAPE, np.float32)}
    return lambda: session.run(None, feed)


def torch_chain(count: int) -> Callable[[], object]:
    small = torch.full(SHAPE, 0.5)

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(0, count, 4):
            x = (x.reshape(1, SHAPE[2], SHAPE[1]).transpose(1, 2).contiguous() + small) * small
        return x

    traced = torch.jit.trace(chain, torch.zeros(SHAPE), check_trace=False)  # type: ignore[no-untyped-call]
    x = torch.zeros(SHAPE)

    def run() -> object:
        with torch.inference_mode():
            return traced(x)

    return run


if __name__ == "__main__":
    main()
