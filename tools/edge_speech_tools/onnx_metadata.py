"""Notes of ours in an ONNX file's metadata: the spec of the stream, and its front end where it is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import onnx

from edge_speech.encoder import StreamingSpec
from edge_speech.features import FrontendConfig, frontend_to_dict

KEY = "edge_speech"


def note(model: onnx.ModelProto, spec: StreamingSpec, frontend: FrontendConfig | None) -> None:
    """Write what `edge-speech import` reads, in place of what was noted before."""
    described = {"spec": asdict(spec), "frontend": None if frontend is None else frontend_to_dict(frontend)}
    set_metadata(model, {**metadata(model), KEY: json.dumps(described, sort_keys=True)})


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Every key of the file's metadata."""
    return {str(entry.key): str(entry.value) for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, values: Mapping[str, Any]) -> None:
    """Replace the file's metadata."""
    del model.metadata_props[:]
    for key, value in values.items():
        model.metadata_props.add(key=key, value=str(value))
