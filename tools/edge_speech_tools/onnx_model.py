"""The fp32 ONNX of a bundle in the place of a checkpoint, for models of which there is no other form here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from edge_speech.bundle import MANIFEST, Bundle, read_bundle
from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech.training.models import StreamingModel
from edge_speech_tools.reference import rows

ARCHITECTURE = "onnx"
_TYPES = {"float32": torch.float32, "int64": torch.int64}


class OnnxModel(StreamingModel):
    """The encoder contract over a graph: it can be measured and converted, not trained."""

    config = None

    def __init__(self, path: Path, spec: StreamingSpec) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.path, self.spec = path, spec
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @property
    def num_weights(self) -> int:
        """Numbers in the graph's constants of floats."""
        kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        constants = onnx.load(self.path).graph.initializer
        return sum(math.prod(tensor.dims) for tensor in constants if tensor.data_type in kinds)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """features (1, window, F), state → log_probs (1, T_out, V) and the next state."""
        names = ["features", *(s.name for s in self.spec.state)]
        arrays = [tensor.detach().cpu().numpy() for tensor in (features, *state)]
        outputs = ["log_probs", *(self.spec.next_name(s.name) for s in self.spec.state)]
        return tuple(map(torch.from_numpy, self._session.run(outputs, dict(zip(names, arrays, strict=True)))))

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros; there is one stream a call."""
        return tuple(torch.zeros(s.shape, dtype=_TYPES[s.dtype]) for s in self.spec.state)

    def parallel(self, features: Tensor) -> Tensor:
        """features (1, T, F) → log_probs (1, ceil(T / subsampling_factor), V), chunk by chunk."""
        return torch.from_numpy(rows(self, self.spec, features[0].numpy()))[None]

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """A graph keeps its own statistics. Raises InputError."""
        raise InputError("an imported model cannot be trained")


def load_any(path: Path) -> LoadedModel:
    """A checkpoint, or the model of a bundle's folder. Raises InputError."""
    if not path.is_dir():
        return load_model(path)
    found = read_bundle(path)
    artifact = next(
        (a for a in found.manifest.artifacts if (a.backend, a.precision) == ("onnxruntime", "fp32")), None
    )
    if artifact is None:
        has = ", ".join(f"{a.backend}/{a.precision}" for a in found.manifest.artifacts)
        raise InputError(f"{path} has no onnxruntime/fp32 to start from; it has {has}")
    return _loaded(found, OnnxModel(found.verified_path(artifact), found.manifest.encoder))


def _loaded(found: Bundle, model: OnnxModel) -> LoadedModel:
    if found.manifest.decoder["blank_id"] != 0:
        raise InputError(f"{found.root} has its blank at {found.manifest.decoder['blank_id']}, not at 0")
    config: dict[str, Any] = {}
    return LoadedModel(model, list(found.tokens), found.manifest.frontend, ARCHITECTURE, config)


def content_of(path: Path) -> Path:
    """The file whose hash tells one model from another: a bundle's manifest holds those of its files."""
    return path / MANIFEST if path.is_dir() else path
