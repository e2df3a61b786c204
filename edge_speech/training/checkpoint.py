"""model.pt: a trained model as plain data. Opening one runs no code of its author's."""

from __future__ import annotations

import os
import pickle
import struct
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.frontends import frontend_for
from edge_speech.training.models import Model
from edge_speech.training.scales import LayerScales, check_scales, scales_from_plain, scales_to_plain
from edge_speech.training.weight_sharing import check_choices

FORMAT = "edge-speech-model"
VERSION = 1
# A streaming model for a device is far smaller; more is refused before it is read.
MAX_BYTES = 4 << 30
# What torch.load raises on a file that is not a whole checkpoint of plain data.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OSError,
    TypeError,
    AssertionError,
    AttributeError,
)


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode with everything needed to run it.

    `tokens` lists one symbol per output, `<blk>` first; `frontend` is what `frontends.frontend_for` reads;
    `metrics` holds the figures its training measured. `quantization` has the scales of its layers, if any,
    for `fake_quantization` and the converters; the weights beside them are floating point. `supernet` has the
    settings, the largest last, of the networks that `supernet.subnetwork` can take out; of others nothing.
    """

    model: Model
    tokens: list[str]
    frontend: dict[str, Any]
    architecture: str
    config: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, LayerScales] = field(default_factory=dict)
    supernet: dict[str, list[int]] = field(default_factory=dict)


def save_model(path: Path, loaded: LoadedModel) -> None:
    """Write model.pt under a temporary name and rename it. Raises InputError on scales or choices of another
    model."""
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
    if loaded.quantization:
        check_scales(loaded.model, loaded.quantization)
        data["quantization"] = scales_to_plain(loaded.quantization)
    if loaded.supernet:
        check_choices(loaded.architecture, models.config_of(loaded.model), loaded.supernet)
        data["supernet"] = loaded.supernet
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


def load_plain(path: Path, what: str) -> Any:
    """Read a torch file of plain data; `what` it should be is for the error. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes, more than the {MAX_BYTES} a checkpoint may have"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as plain data; it is truncated or not {what} ({type(error).__name__})"
        ) from error


def read_plain(path: Path, expected_format: str, version: int) -> dict[str, Any]:
    """Read a torch file of plain data whose `format` and `version` are as expected. Raises InputError."""
    data = load_plain(path, "a checkpoint made by edge-speech train")
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
        heading, *details = str(error).splitlines()  # torch names the weights that do not fit below a heading
        reason = details[0] if details and heading.endswith(":") else heading
        raise InputError(f"{path} is inconsistent: {textwrap.shorten(reason, 240)}") from error


def _from_plain(data: dict[str, Any]) -> LoadedModel:
    tokens = [str(token) for token in data["tokens"]]
    frontend = dict(data["frontend"])
    # Nothing is allocated for what the file claims: the shapes must match the tensors it really holds.
    with torch.device("meta"):
        model = models.build(str(data["architecture"]), dict(data["config"]))
    _check(model, tokens, frontend, str(data["architecture"]))
    model.load_state_dict(data["state_dict"], assign=True)
    model.eval()
    config, metrics = dict(data["config"]), dict(data.get("metrics", {}))
    scales = scales_from_plain(data.get("quantization", {}))
    check_scales(model, scales)
    supernet = data.get("supernet", {})
    check_choices(data["architecture"], models.config_of(model), supernet)
    return LoadedModel(model, tokens, frontend, data["architecture"], config, metrics, scales, supernet)


def _check(model: Model, tokens: list[str], frontend: dict[str, Any], architecture: str) -> None:
    config = model.config
    if len(tokens) != config.vocab_size or len(set(tokens)) != len(tokens):
        raise InputError(f"{len(tokens)} tokens for {config.vocab_size} outputs; they must match and differ")
    bins = frontend_for(architecture, frontend).num_features
    if bins != config.num_features:
        raise InputError(f"the front end gives {bins} bins, the model reads {config.num_features}")
