"""How long a chunk should take on a device that is not at hand: a roofline, and what each node costs besides.

    latency = max(operations / peak, bytes / bandwidth) + nodes × overhead

The first part is the roofline model, https://doi.org/10.1145/1498765.1498785. What a node costs besides is a
figure of the target's profile. docs/targets.md has how near the prediction comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edge_speech.encoder import StreamingSpec
from edge_speech.target import PowerMode, Target
from edge_speech_tools.passes import PassResult

_aten = torch.ops.aten
# Bytes of a value of state, and of an activation where the artifact's arithmetic is not fp16.
WIDTH = 4


@dataclass(frozen=True)
class Work:
    """One encoder step: `multiply_adds` of its products (layers', and attention's own), values of activations
    that its operators read and write, values of state, and `operators` that move or compute."""

    multiply_adds: int
    activation_values: int
    state_values: int
    operators: int


def count_work(model: torch.nn.Module, spec: StreamingSpec) -> Work:
    """Run one step of the PyTorch model and count."""
    counter = _Counter([*model.parameters(), *model.buffers()])
    features = torch.zeros(1, spec.window_frames, spec.num_features)
    state = model.initial_state(1)  # type: ignore[operator]
    with torch.no_grad(), counter:
        model(features, *state)
    state_values = sum(math.prod(tensor.shape) for tensor in spec.state)
    return Work(counter.multiply_adds, counter.values, state_values, counter.operators)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that runs; a recurrent layer may be one."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self.multiply_adds = self.values = self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if read and not func.is_view and func not in _FREE:
            written = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
            activations = [t for t in read if t.untyped_storage().data_ptr() not in self.weights]
            self.values += sum(t.numel() for t in (*activations, *written))
            self.operators += 1
            self.multiply_adds += _PRODUCTS.get(func.overloadpacket, _none)(args, output)
        return output


def _none(args: Any, output: Any) -> int:
    return 0


def _attention(args: Any, output: Any) -> int:
    """Queries (…, L, E) by keys (…, S, E), the weights by values (…, S, Ev)."""
    queries, keys, values = args[:3]
    return int(queries[..., 0].numel() * keys.shape[-2] * (queries.shape[-1] + values.shape[-1]))


def _recurrent(args: Any, output: Any) -> int:
    """Sequence (T, B, F) or (B, T, F), weights of input and of state: both read in every step."""
    sequence, of_input, of_state = args[:3]
    return int(sequence[..., 0].numel() * (of_input.numel() + of_state.numel()))


_FREE = {_aten._unsafe_view.default, _aten.detach.default}
_PRODUCTS: Mapping[Any, Callable[[Any, Any], int]] = {
    _aten.mm: lambda args, output: output.numel() * args[0].shape[-1],
    _aten.bmm: lambda args, output: output.numel() * args[0].shape[-1],
    _aten.mv: lambda args, output: output.numel() * args[0].shape[-1],
    _aten.addmm: lambda args, output: output.numel() * args[1].shape[-1],
    _aten.addmv: lambda args, output: output.numel() * args[1].shape[-1],
    _aten.baddbmm: lambda args, output: output.numel() * args[1].shape[-1],
    _aten.convolution: lambda args, output: output.numel() * args[1][0].numel(),
    _aten.mkldnn_rnn_layer: _recurrent,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


@dataclass(frozen=True)
class Artifact:
    """What an engine runs. `nodes`: of its graph where that is ONNX, else the model's operators."""

    backend: str
    precision: str
    bytes: int
    nodes: int

    @property
    def arithmetic(self) -> str:
        """ "fp32", "fp16" or "int8"; weights alone in int8 or int4 are multiplied in fp32."""
        if self.precision in ("int8-static", "int8-dynamic"):
            return "int8"
        return "fp16" if self.precision == "fp16" else "fp32"


def artifact_of(result: PassResult, work: Work) -> Artifact:
    """Of a file that a pass wrote."""
    nodes = work.operators
    if result.path.suffix == ".onnx":
        graph = onnx.load(result.path, load_external_data=False).graph
        nodes = sum(node.op_type != "Constant" for node in graph.node)
    return Artifact(result.backend, result.precision, result.path.stat().st_size, nodes)


@dataclass(frozen=True)
class Prediction:
    """Of one artifact in one power mode. `bound` is the largest of the three parts; a chunk lasts `chunk_ms`,
    and `rtf` is the encoder's share of that."""

    mode: str
    latency_ms: float
    rtf: float
    bound: str
    compute_ms: float
    memory_ms: float
    overhead_ms: float


def predict(work: Work, artifact: Artifact, target: Target, mode: PowerMode, chunk_ms: float) -> Prediction:
    """On one core of the CPU, or the GPU, as the artifact's backend has it."""
    gops = target.peak_gops(artifact.backend, artifact.arithmetic, mode)
    parts = {
        "compute": 2 * work.multiply_adds / gops / 1e6,
        "memory": moved_bytes(work, artifact) / mode.memory_bandwidth_gb_s / 1e6,
        "overhead": artifact.nodes * target.overhead_us.get(artifact.backend, 0.0) / 1e3,
    }
    latency_ms = max(parts["compute"], parts["memory"]) + parts["overhead"]
    return Prediction(
        mode=mode.name,
        latency_ms=round(latency_ms, 4),
        rtf=round(latency_ms / chunk_ms, 6),
        bound=max(parts, key=lambda name: parts[name]),
        **{f"{name}_ms": round(ms, 4) for name, ms in parts.items()},
    )


def moved_bytes(work: Work, artifact: Artifact) -> int:
    """Weights once, state read and written, activations as often as operators read and write them."""
    width = 2 if artifact.arithmetic == "fp16" else WIDTH
    return artifact.bytes + 2 * WIDTH * work.state_values + width * work.activation_values


def section(
    target: Target,
    work: Work,
    results: Sequence[PassResult],
    measured: Mapping[str, Mapping[str, Any]],
    chunk_ms: float,
) -> dict[str, Any]:
    """The report's `prediction`, of what the target's own engines load.

    `measured` by `backend/precision`: `latency_ms`, `rtf`, and `where`.
    """
    entries = []
    for result in (r for r in results if r.backend in target.backends):
        artifact = artifact_of(result, work)
        modes = [asdict(predict(work, artifact, target, mode, chunk_ms)) for mode in target.power_modes]
        entries.append(
            {
                "backend": result.backend,
                "precision": result.precision,
                "processor": target.processor(result.backend).name,
                "nodes": artifact.nodes,
                "moved_bytes": moved_bytes(work, artifact),
                "overhead_us": target.overhead_us.get(result.backend, 0.0),
                "modes": modes,
                "measured": measured.get(result.key),
            }
        )
    return {
        "chunk_ms": chunk_ms,
        "work": asdict(work),
        "unconfirmed": list(target.unconfirmed),
        "artifacts": entries,
    }
