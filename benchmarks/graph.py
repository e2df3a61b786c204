"""The plain export of a model beside the rewritten graph: nodes, time of a step and texts, as JSON.

    python benchmarks/graph.py model.pt --eval dev.jsonl --chunk-frames 16 --calibration train.jsonl

`ms` is the median of an encoder step on one thread, in rounds that take turns; `nodes` are those of the file,
`optimised_nodes` what onnxruntime runs. `texts_identical` is the share of recordings whose text is PyTorch's.
With --calibration also int8-static of both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edge_speech.backends import load_encoder
from edge_speech.encoder import Encoder, EncoderStream, step_buffers
from edge_speech.features import frontend_from_dict
from edge_speech.training.checkpoint import load_model
from edge_speech_tools import parity, recordings
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.decoding import Line, decode, decode_reference
from edge_speech_tools.passes import Source
from edge_speech_tools.provenance import describe_tools, host
from edge_speech_tools.quantize import int8_static
from edge_speech_tools.recordings import Recording
from edge_speech_tools.reference import TorchEncoder, single_thread
from edge_speech_tools.search.model import rechunked

ROUNDS, STEPS = 120, 20


@dataclass(frozen=True)
class Graph:
    """A file of one step."""

    name: str
    path: Path


def main() -> None:
    args = parse()
    loaded = load_model(args.model)
    if args.chunk_frames:
        loaded = rechunked(loaded, args.chunk_frames)
    line = Line(frontend_from_dict(loaded.frontend), loaded.tokens)
    reference = TorchEncoder(loaded.model, loaded.model.spec)  # type: ignore[union-attr, arg-type]
    heard = recordings.from_manifest(args.eval, need_text=False).recordings[: args.limit]
    with single_thread(), tempfile.TemporaryDirectory() as work:
        graphs = write(reference, line, args.calibration, Path(work))
        rows = measure(graphs, reference, line, heard)
    setup = {"model": args.model.name, "chunk_frames": reference.spec.chunk_frames, "recordings": len(heard)}
    print(json.dumps({"host": host(), "tools": describe_tools(), **setup, "results": rows}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint, model.pt")
    parser.add_argument("--eval", type=Path, required=True, help="manifest of recordings to compare texts on")
    parser.add_argument("--limit", type=int, default=50, help="recordings of --eval (default: 50)")
    parser.add_argument("--chunk-frames", type=int, help="another chunk length than the model's")
    parser.add_argument("--calibration", type=Path, help="manifest to measure int8 ranges on")
    return parser.parse_args()


def write(reference: TorchEncoder, line: Line, calibration: Path | None, work: Path) -> list[Graph]:
    """The plain and the rewritten graph, each in fp32 and, with `calibration`, in int8."""
    features: Sequence[Any] = ()
    if calibration is not None:
        heard = recordings.from_manifest(calibration, need_text=False).recordings
        features = CalibrationSet(heard, line.frontend)
    found = []
    for kind in ("plain", "rewritten"):
        source = Source(reference.model, reference.spec, work / kind, features)
        source.directory.mkdir()
        path = source.directory / streaming_onnx.FILE_NAME
        if kind == "plain":
            named = source.directory / streaming_onnx.LAYERS_NAME
            streaming_onnx.export(source, named, streaming_onnx.Config())
            streaming_onnx.strip_notes(named, streaming_onnx.layers(reference.model))
            shutil.copyfile(named, path)
        else:
            streaming_onnx.run(source)
        found.append(Graph(f"{kind} fp32", path))
        if features:
            found.append(Graph(f"{kind} int8-static", int8_static.run(source).path))
    return found


def measure(
    graphs: Sequence[Graph], reference: TorchEncoder, line: Line, heard: Sequence[Recording]
) -> dict[str, dict[str, Any]]:
    """A row for each graph, by name."""
    encoders = {g.name: load_encoder("onnxruntime", g.path, reference.spec) for g in graphs}
    times, rows = step_times(graphs, reference), {}
    wanted = list(decode_reference(line, reference, heard))
    for graph in graphs:
        got = parity.compare(wanted, decode(line, encoders[graph.name], heard, keep_log_probs=True))
        rows[graph.name] = {
            "bytes": graph.path.stat().st_size,
            "nodes": len(onnx.load(graph.path).graph.node),
            "optimised_nodes": optimised_nodes(graph.path),
            "ms": round(times[graph.name], 4),
            "times_as_fast": round(times[graphs[0].name] / times[graph.name], 3),
            "max_abs": got.max_abs,
            "texts_identical": got.text_identical,
        }
    return rows


def step_times(graphs: Sequence[Graph], reference: TorchEncoder) -> dict[str, float]:
    """Milliseconds of a step on noise. What is loaded last is faster: half of the rounds are in reverse."""
    found: dict[str, list[float]] = {graph.name: [] for graph in graphs}
    for order in (graphs, graphs[::-1]):
        streams = {g.name: opened(load_encoder("onnxruntime", g.path, reference.spec)) for g in order}
        for _ in range(ROUNDS // 2):
            for name, stream in streams.items():
                for _ in range(STEPS):
                    start = time.perf_counter()
                    stream.step()
                    found[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}


def opened(encoder: Encoder) -> EncoderStream:
    """A stream that reads noise."""
    features, log_probs = step_buffers(encoder)
    features[:] = np.random.default_rng(0).normal(-8, 4, features.shape)
    return encoder.open(features, log_probs)


def optimised_nodes(path: Path) -> int:
    """How many nodes onnxruntime is left with when it has loaded the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return len(onnx.load(options.optimized_model_filepath).graph.node)


if __name__ == "__main__":
    main()
