"""ExecuTorch program (`.pte`): one step exported, its operators given to XNNPACK where XNNPACK has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_speech.errors import InputError
from edge_speech_tools.convert.torchscript_mobile import example_inputs
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source

BACKEND = "executorch"
REQUIRES = "executorch"
PRECISION = "fp32"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
FILE_NAME = "encoder.fp32.pte"


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def run(source: Source, config: Config = Config()) -> PassResult:
    """Export, lower and write the model. Raises InputError."""
    path = source.directory / FILE_NAME
    write_program(source.model, source, path)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


def write_program(model: torch.nn.Module, source: Source, path: Path) -> None:
    """The program of one step of `model`, which is `source.model` or a quantised copy of it."""
    path.write_bytes(lower(model, source).to_executorch().buffer)


def lower(model: torch.nn.Module, source: Source, partitioner: Any = None) -> Any:
    """The exported step with the parts in it that `partitioner`, or else XNNPACK, takes (an
    EdgeProgramManager). Raises InputError."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        with torch.no_grad():
            try:
                exported = torch.export.export(model, example_inputs(source), strict=False)
            except Exception as error:  # torch.export's exceptions share no base class
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                raise InputError(
                    f"the model cannot be exported to ExecuTorch ({reason}); its forward must be free of "
                    "branches on data"
                ) from error
            return to_edge_transform_and_lower(exported, partitioner=[partitioner or XnnpackPartitioner()])


def left_over(lowered: Any) -> Counter[str]:
    """How often each operator runs outside the partitioner's engine, in ExecuTorch's portable kernels."""
    graph = lowered.exported_program().graph
    calls = [getattr(n.target, "_op", n.target) for n in graph.nodes if n.op == "call_function"]
    return Counter(str(call) for call in calls if isinstance(call, torch._ops.OpOverload))
