"""model.pt: a trained model as plain data. Opening one runs no code of its author's."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.training import models
from edge_speech.training.models import StreamingModel

FORMAT = "edge-speech-model"
VERSION = 1
# A streaming model for a device is far smaller; more is refused before it is read.
MAX_BYTES = 4 << 30
# What torch.load raises on a file that is not a whole checkpoint of plain data.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError)


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode with everything needed to run it.

    `tokens` lists one symbol per output, `<blk>` first; `frontend` is what `features.frontend_from_dict`
    reads; `metrics` holds the figures its training measured.
    """

    model: StreamingModel
    tokens: list[str]
    frontend: dict[str, Any]
    architecture: str
    config: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)


def save_model(path: Path, loaded: LoadedModel) -> None:
    """Write model.pt under a temporary name and rename it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.model.state_dict().items()}
    data = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": loaded.architecture,
        "config": loaded.config,
        "state_dict": state,
        "tokens": loaded.tokens,
        "frontend": loaded.frontend,
        "metrics": loaded.metrics,
    }
    save_atomically(data, path)


def save_atomically(data: dict[str, Any], path: Path) -> None:
    """`torch.save` to a temporary sibling, then rename. A failure leaves nothing of it behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(data, temporary)
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's writer reports a full disk this way
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_plain(path: Path, expected_format: str, version: int) -> dict[str, Any]:
    """Read a torch file of plain data whose `format` and `version` are as expected. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes, more than the {MAX_BYTES} a checkpoint may have"
        )
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint of plain data; it is truncated or not made by "
            f"edge-speech train ({type(error).__name__})"
        ) from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != expected_format:
        raise InputError(f"{path} holds {str(found)[:60]!r}, not {expected_format!r}; see edge-speech train")
    if data.get("version") != version:
        raise InputError(f"{path} has version {data.get('version')!r}; this release reads version {version}")
    return data  # type: ignore[no-any-return]


def load_model(path: str | os.PathLike[str]) -> LoadedModel:
    """Read model.pt. Raises InputError when it is missing, truncated, not ours, or inconsistent."""
    path = Path(path)
    data = read_plain(path, FORMAT, VERSION)
    try:
        return _from_plain(data)
    except KeyError as error:
        raise InputError(f"{path} lacks {error}; make it with edge-speech train") from error
    except (InputError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} is inconsistent: {str(error).splitlines()[0]}") from error


def _from_plain(data: dict[str, Any]) -> LoadedModel:
    tokens = [str(token) for token in data["tokens"]]
    frontend = dict(data["frontend"])
    # Nothing is allocated for what the file claims: the shapes must match the tensors it really holds.
    with torch.device("meta"):
        model = models.build(str(data["architecture"]), dict(data["config"]))
    _check(model, tokens, frontend)
    model.load_state_dict(data["state_dict"], assign=True)
    model.eval()
    return LoadedModel(
        model, tokens, frontend, data["architecture"], dict(data["config"]), dict(data.get("metrics", {}))
    )


def _check(model: StreamingModel, tokens: list[str], frontend: dict[str, Any]) -> None:
    spec = model.spec
    if len(tokens) != spec.vocab_size or len(set(tokens)) != len(tokens):
        raise InputError(f"{len(tokens)} tokens for {spec.vocab_size} outputs; they must match and differ")
    bins = frontend_from_dict(frontend).num_features
    if bins != spec.num_features:
        raise InputError(f"the front end gives {bins} bins, the model reads {spec.num_features}")
