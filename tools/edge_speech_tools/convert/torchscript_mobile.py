"""TorchScript for the lite interpreter (`.ptl`): traced, frozen, loaded again and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.mobile_optimizer import optimize_for_mobile

from edge_speech.backends.torchscript_mobile import load_module
from edge_speech.encoder import StreamingSpec
from edge_speech.errors import CheckFailed
from edge_speech_tools.convert.onnx import example_features
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source

BACKEND = "torchscript_mobile"
PRECISION = "fp32"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
FILE_NAME = "encoder.fp32.ptl"


@dataclass(frozen=True)
class Config:
    """`tolerance`: largest difference of any output of the second step, loaded file against model."""

    tolerance: float = 1e-4


def has_xnnpack() -> bool:
    """Was this torch built with XNNPACK? `optimize_for_mobile` packs weights for it and fails without."""
    from torch.backends import xnnpack

    return bool(xnnpack.enabled)  # type: ignore[attr-defined]


def remark() -> str:
    """What the plan says of this torch: weights are packed for XNNPACK where it was built in."""
    if has_xnnpack():
        return "optimised for mobile"
    return "this torch has no XNNPACK, so not optimised for mobile"


def run(source: Source, config: Config = Config()) -> PassResult:
    """Trace, freeze and save the model. Raises CheckFailed when the loaded file differs from the model."""
    path = source.directory / FILE_NAME
    save_lite(source.model, example_inputs(source), path)
    difference = compare_steps(source.model, path, source.spec)
    if difference > config.tolerance:
        raise CheckFailed(
            f"{path.name} differs from the model by {difference:.2e}; at most {config.tolerance:.0e}"
        )
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


def example_inputs(source: Source) -> tuple[torch.Tensor, ...]:
    """Features and the initial state, to trace with."""
    return (example_features(source.spec), *source.model.initial_state(1))  # type: ignore[operator]


def save_lite(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """Trace one step, freeze it, rewrite it for mobile where this torch can, save it.

    The file is written here, from memory: torch's own writer ends the process when the disk is full.
    Raises OSError then.
    """
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(model, inputs)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced.eval())
        if has_xnnpack():
            frozen = optimize_for_mobile(frozen)
        content = frozen._save_to_buffer_for_lite_interpreter()
    path.write_bytes(content)


def compare_steps(model: torch.nn.Module, path: Path, spec: StreamingSpec) -> float:
    """Largest absolute difference over all outputs of two steps, the state carried: the first step's
    state is all zeros, so only the second shows that the state is read."""
    with quiet():
        loaded = load_module(path)
    features = example_features(spec)
    want_state = got_state = tuple(model.initial_state(1))  # type: ignore[operator]
    worst = 0.0
    with torch.inference_mode():
        for _ in range(2):
            want, *want_next = model(features, *want_state)
            got, *got_next = loaded(features, *got_state)
            pairs = zip([got, *got_next], [want, *want_next], strict=True)
            worst = max(worst, *(float((g.double() - w.double()).abs().max()) for g, w in pairs))
            want_state, got_state = tuple(want_next), tuple(got_next)
    return worst
