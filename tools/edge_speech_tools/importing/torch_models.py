"""TorchScript and torch.export models as streaming ONNX: forward(features, *state) → (log_probs, *state).

Neither runs Python of the file's author: TorchScript is read by PyTorch's C++ loader and runs in its
interpreter, of a .pt2 archive only what `exported_program` lets through. Both are parsed natively all the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.importing.description import Description
from edge_speech_tools.importing.exported_program import load_exported
from edge_speech_tools.onnx_graph import fold_weights, quiet

# Largest difference of any output from the PyTorch module.
TOLERANCE = 2e-3
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class TorchModel:
    """A loaded module and how it is exported."""

    module: Callable[..., Any]
    export: Callable[[tuple[torch.Tensor, ...], Path], None]


def torchscript(path: Path) -> TorchModel:
    """Open a TorchScript file. Raises InputError."""
    try:
        with quiet():
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is no TorchScript file; allowed: one written by torch.jit.save, torch.export.save "
            "(.pt2) or an ONNX exporter (.onnx). A checkpoint of `edge-speech train` goes to `edge-speech "
            "optimize`"
        ) from error
    module.eval()

    def export(inputs: tuple[torch.Tensor, ...], target: Path) -> None:
        torch.onnx.export(module, inputs, str(target), dynamo=False, opset_version=18, **_names(inputs))

    return TorchModel(module, export)


def exported(path: Path) -> TorchModel:
    """Open a torch.export file. Raises InputError."""
    program = load_exported(path)

    def export(inputs: tuple[torch.Tensor, ...], target: Path) -> None:
        names = _names(inputs)
        torch.onnx.export(
            program,
            (),
            str(target),
            dynamo=True,
            external_data=False,
            opset_version=18,
            verbose=False,
            **names,
        )

    return TorchModel(program.module(), export)


def to_onnx(model: TorchModel, described: Description, target: Path) -> Description:
    """Write the graph of one step, which gives what the module gives. Returns the description of that graph.

    Raises InputError where the module does not run or export, CheckFailed where the graph differs.
    """
    inputs = _inputs(described)
    reference = _step(model.module, inputs)
    if len(reference) != len(inputs):
        raise InputError(
            f"forward gives {len(reference)} tensors for {len(described.state)} states; it must give "
            "log_probs and each state of --spec, in its order"
        )
    try:
        with quiet(), torch.no_grad():
            model.export(inputs, target)
    except _FAILURES as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"the model cannot be exported to ONNX ({reason})") from error
    graph = onnx.load(target)
    fold_weights(graph)
    onnx.save(graph, target)
    _compare(model, inputs, target)
    states = tuple(
        replace(s, input=f"state{i}", output=f"next_state{i}") for i, s in enumerate(described.state)
    )
    return replace(described, features="features", log_probs="log_probs", state=states)


def _names(inputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    states = [f"state{i}" for i in range(len(inputs) - 1)]
    return {
        "input_names": ["features", *states],
        "output_names": ["log_probs", *(f"next_{name}" for name in states)],
    }


def _inputs(described: Description) -> tuple[torch.Tensor, ...]:
    """Seeded noise as features, so that nothing folds to a constant, and states of zeros."""
    frontend = described.frontend
    unshaped = [s.name for s in described.state if not s.shape]
    if not described.chunk_frames or frontend is None or unshaped:
        what = f"the shape of state {unshaped[0]}" if unshaped else "[encoder] chunk_frames and [frontend]"
        raise InputError(f"a TorchScript or torch.export model does not tell {what}; give it in --spec")
    window = described.chunk_frames + described.right_context_frames
    noise = torch.randn(1, window, frontend.num_features, generator=torch.Generator().manual_seed(0))
    states = [torch.zeros(s.shape, dtype=getattr(torch, s.dtype)) for s in described.state]
    return (noise, *states)


def _step(module: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    try:
        with torch.no_grad():
            given = module(*inputs)
    except _FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"the model fails on one step of --spec ({reason})") from error
    flat = [given] if isinstance(given, torch.Tensor) else _flat(given)
    if not flat or not all(isinstance(t, torch.Tensor) for t in flat):
        raise InputError("forward must give a tuple of tensors: log_probs and the next states")
    return flat


def _flat(given: Any) -> list[Any]:
    """A tuple of tensors, or of log_probs and a list of states."""
    if not isinstance(given, (tuple, list)):
        return []
    return [t for part in given for t in (_flat(part) if isinstance(part, (tuple, list)) else [part])]


def _compare(model: TorchModel, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """Two steps, the state carried. Raises CheckFailed."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        reason = str(error).splitlines()[0].partition("failed:")[2] or str(error).splitlines()[0]
        raise InputError(f"onnxruntime cannot load the exported graph ({reason})") from error
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs):
        raise CheckFailed("the exported graph has lost a state: the model does not read all of them")
    state = list(inputs[1:])
    arrays = [t.numpy() for t in state]
    for _ in range(2):
        want = _step(model.module, (inputs[0], *state))
        got = session.run(None, dict(zip(names, [inputs[0].numpy(), *arrays], strict=True)))
        worst = max(float(np.abs(g - w.numpy()).max()) for g, w in zip(got, want, strict=True))
        if not worst <= TOLERANCE:
            raise CheckFailed(
                f"the exported graph differs from the model by {worst:.2e}, at most {TOLERANCE:g}"
            )
        state, arrays = want[1:], got[1:]
