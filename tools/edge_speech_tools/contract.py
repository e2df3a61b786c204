"""Does a model keep the encoder contract? Checked before any work is spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel
from edge_speech.training.models import StreamingModel

_DTYPES = {"float32": torch.float32, "int64": torch.int64}


def require_streaming(path: Path, loaded: LoadedModel) -> LoadedModel:
    """`loaded`, which `path` holds, if it streams. Raises InputError."""
    if isinstance(loaded.model, StreamingModel):
        return loaded
    raise InputError(
        f"{path} is {loaded.architecture}, which hears a whole recording before it answers; "
        "let it teach a streaming model, and optimise that one"
    )


def check_contract(model: torch.nn.Module, num_tokens: int, num_mel_bins: int) -> StreamingSpec:
    """Run one step and compare it with the model's own `spec`. Returns the spec; raises InputError."""
    for name in ("forward", "initial_state", "spec"):
        if not hasattr(model, name):
            raise InputError(
                f"the model has no `{name}`; a streaming encoder has forward, initial_state and spec"
            )
    spec = cast(StreamingSpec, model.spec)
    _check_spec(spec, num_tokens, num_mel_bins)
    state = tuple(model.initial_state(1))  # type: ignore[operator]
    _check_state("initial_state", state, spec)
    _check_zero(state, spec)
    features = torch.full((1, spec.window_frames, spec.num_features), spec.padding_value)
    log_probs, *next_state = _step(model, features, state)
    expected = (1, spec.output_frames, spec.vocab_size)
    if tuple(log_probs.shape) != expected:
        raise InputError(f"forward gave log_probs {tuple(log_probs.shape)}; its spec says {expected}")
    if log_probs.isnan().any():
        raise InputError("forward gave NaN; the weights are not finite, or the model divides by nothing")
    if not np.allclose(torch.logsumexp(log_probs, dim=-1).numpy(), 0.0, atol=1e-3):
        raise InputError("forward gave rows that are no log-probabilities; end the model with log_softmax")
    _check_state("forward", tuple(next_state), spec)
    return spec


def _step(
    model: torch.nn.Module, features: torch.Tensor, state: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    try:
        with torch.inference_mode():
            return tuple(model(features, *state))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the model fails on one step of its own spec ({reason}); correct its spec"
        ) from error


def _check_zero(state: tuple[torch.Tensor, ...], spec: StreamingSpec) -> None:
    """A bundle stores no initial values: on the device every stream starts from zeros."""
    for tensor, want in zip(state, spec.state, strict=True):
        if tensor.any():
            raise InputError(
                f"state {want.name} does not start as zeros; on the device it does, so change the model"
            )


def _check_spec(spec: StreamingSpec, num_tokens: int, num_mel_bins: int) -> None:
    if spec.chunk_frames <= 0 or spec.chunk_frames % spec.subsampling_factor:
        raise InputError(
            f"chunk_frames {spec.chunk_frames} is not a positive multiple of subsampling_factor "
            f"{spec.subsampling_factor}"
        )
    if spec.vocab_size != num_tokens:
        raise InputError(
            f"the model gives {spec.vocab_size} log-probabilities; the checkpoint has {num_tokens} tokens"
        )
    if spec.num_features != num_mel_bins:
        raise InputError(f"the model reads {spec.num_features} features; its front end gives {num_mel_bins}")
    names = [s.name for s in spec.state]
    reserved = {"features", "log_probs"} | {spec.next_name(name) for name in names}
    odd = [n for n in names if not n.isidentifier() or names.count(n) > 1 or n in reserved]
    if odd or not names:
        raise InputError(
            f"state names {odd or names} must be unique identifiers, apart from features and log_probs"
        )


def _check_state(who: str, state: tuple[torch.Tensor, ...], spec: StreamingSpec) -> None:
    if len(state) != len(spec.state):
        raise InputError(f"{who} gave {len(state)} state tensors; its spec names {len(spec.state)}")
    for tensor, want in zip(state, spec.state, strict=True):
        if tuple(tensor.shape) != want.shape or tensor.dtype != _DTYPES.get(want.dtype):
            raise InputError(
                f"{who} gave state {want.name} {tuple(tensor.shape)} {tensor.dtype}; its spec says "
                f"{want.shape} {want.dtype} (float32 and int64 are allowed)"
            )
        if tensor.numel() == 0:
            raise InputError(
                f"state {want.name} has a zero-sized dimension {want.shape}; give it a fixed size"
            )
