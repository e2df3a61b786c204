"""Small models with the inputs, outputs and metadata of those that others export, seeded and sharp.

Names, shapes, axes and metadata follow icefall's zipformer/export-onnx-streaming-ctc.py and, of sherpa-onnx,
scripts/wenet/export-onnx-streaming.py and scripts/nemo/…/export-onnx-ctc.py.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edge_speech_tools.onnx_metadata import set_metadata

SYMBOLS = ["▁one", "▁two", "th", "ree", "▁four", "▁fi", "ve", "▁six"]
BINS, VOCAB = 80, len(SYMBOLS) + 1


class Sharp(nn.Module):
    """Logits of frames (N, rows, 4 bins) and of what states say: random, but the blank's on silence."""

    def __init__(self, blank: int, floor: float, gain: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        weight = torch.randn(4 * BINS, VOCAB, generator=generator) / (4 * BINS) ** 0.5 * gain
        weight[:, blank] = 0
        self.weight, self.floor = nn.Parameter(weight - weight.mean(dim=0)), floor
        bias = torch.zeros(VOCAB)
        bias[blank] = 0.5
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, F) → (N, T / 4, V)."""
        grouped = (x - self.floor).reshape(x.shape[0], -1, 4 * BINS)
        return grouped @ self.weight + self.bias


class Zipformer2(nn.Module):
    """Every one of its 6 layers + 2 states is read and renewed."""

    LAYERS, DIMS, HEADS, QUERY, VALUE, KERNELS, LEFT = (
        [1, 1],
        [16, 32],
        [2, 2],
        [4, 4],
        [3, 3],
        [7, 5],
        [8, 4],
    )
    CHUNK, WINDOW = 32, 45

    def __init__(self) -> None:
        super().__init__()
        self.logits = Sharp(0, -15.942385)

    def initial(self) -> list[Tensor]:
        """Zeros as the metadata make them."""
        state = []
        sizes = self.DIMS, self.HEADS, self.QUERY, self.VALUE, self.KERNELS, self.LEFT
        for d, h, q, v, k, left in zip(*sizes, strict=True):
            state += [
                torch.zeros(left, 1, q * h), torch.zeros(1, 1, left, 3 * d // 4), torch.zeros(left, 1, v * h),
                torch.zeros(left, 1, v * h), torch.zeros(1, d, k // 2), torch.zeros(1, d, k // 2),
            ]  # fmt: skip
        return [*state, torch.zeros(1, 128, 3, 19), torch.zeros(1, dtype=torch.int64)]

    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x (N, 45, 80) → log_probs (N, 8, V); the memory shifts what is heard, and fades."""
        heard = (x[:, : self.CHUNK].mean() + 10) * 0.1
        remembered = torch.stack([s.to(x.dtype).mean() for s in states[:-1]]).sum()
        started = (states[-1] > 0).to(x.dtype).reshape(-1, 1, 1)
        tilt = torch.linspace(-1, 1, VOCAB)
        y = self.logits(x[:, : self.CHUNK]) + self.logits(x[:, 13:]) * 0.3
        y = y + (remembered * started) * tilt * 0.5
        following = [s * 0.5 + heard for s in states[:-1]]
        return torch.log_softmax(4 * y, dim=-1), [*following, states[-1] + self.CHUNK // 2]


def write_zipformer2(path: Path, **changed: str) -> Path:
    """As icefall's export script: dynamic N, names and metadata; `changed` replaces metadata."""
    model, state = Zipformer2().eval(), Zipformer2().initial()
    kinds = ["key", "nonlin_attn", "val1", "val2", "conv1", "conv2"]
    names = [f"cached_{kind}_{i}" for i in range(2) for kind in kinds] + ["embed_states", "processed_lens"]
    axis = {"key": 1, "nonlin_attn": 1, "val1": 1, "val2": 1}
    axes = {n: {axis.get(n.removeprefix("cached_")[:-2], 0): "N"} for n in names}
    outputs = [f"new_{n}" for n in names]
    dynamic = {"x": {0: "N"}, "log_probs": {0: "N"}, **axes, **{f"new_{n}": a for n, a in axes.items()}}
    inputs = torch.rand(1, model.WINDOW, BINS), state
    export(model, inputs, path, (["x", *names], ["log_probs", *outputs]), dynamic)
    left = ",".join(map(str, model.LEFT))
    described = {
        "model_type": "zipformer2", "version": "1", "model_author": "k2-fsa",
        "comment": "streaming ctc zipformer2",
        "decode_chunk_len": model.CHUNK, "T": model.WINDOW, "num_encoder_layers": "1,1",
        "encoder_dims": "16,32",
        "cnn_module_kernels": "7,5", "left_context_len": left, "query_head_dims": "4,4",
        "value_head_dims": "3,3",
        "num_heads": "2,2",
    }  # fmt: skip
    return describe(path, {**described, **changed})


class Wenet(nn.Module):
    """Counts with the offset, sees the mask, carries both caches."""

    CHUNK, LEFT, HEADS, BLOCKS, SIZE, KERNEL, RIGHT = 4, 2, 2, 2, 16, 5, 6

    def __init__(self) -> None:
        super().__init__()
        self.logits = Sharp(0, -15.942385, 0.5)

    def forward(
        self, x: Tensor, offset: Tensor, required: Tensor, *caches: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (1, 19, 80) and the caches of attention and convolution and the mask → log_probs (1, 4, V)."""
        attention, convolution, mask = caches
        seen = mask.to(x.dtype).mean() + torch.cos(offset.to(x.dtype) - required.to(x.dtype))
        memory = attention[:, :, -1].mean() + convolution.mean()
        y = self.logits(x[:, :16]) + (0.3 * seen + memory) * torch.linspace(-1, 1, VOCAB)
        heard = (x.mean() - 5) * 0.1
        newest = torch.zeros_like(attention[:, :, : self.CHUNK]) + heard
        return (
            torch.log_softmax(4 * y, dim=-1),
            torch.cat([attention[:, :, self.CHUNK :], newest], dim=2),
            convolution * 0.5 + heard,
        )


def write_wenet(path: Path) -> Path:
    """As the WeNet export script of sherpa-onnx."""
    m = Wenet().eval()
    left, window = m.CHUNK * m.LEFT, (m.CHUNK - 1) * 4 + m.RIGHT + 1
    inputs = (
        torch.rand(1, window, BINS), torch.tensor([left]), torch.tensor([left]),
        torch.zeros(m.BLOCKS, m.HEADS, left, m.SIZE // m.HEADS * 2),
        torch.zeros(m.BLOCKS, 1, m.SIZE, m.KERNEL - 1),
        torch.ones(1, 1, left + m.CHUNK, dtype=torch.bool),
    )  # fmt: skip
    names = ["x", "offset", "required_cache_size", "attn_cache", "conv_cache", "attn_mask"]
    dynamic = {"x": {0: "N", 1: "T"}, "attn_cache": {2: "T"}, "attn_mask": {2: "T"}, "log_probs": {0: "N"}}
    export(m, inputs, path, (names, ["log_probs", "next_att_cache", "next_conv_cache"]), dynamic)
    described = {
        "model_type": "wenet_ctc", "chunk_size": m.CHUNK, "left_chunks": m.LEFT, "head": m.HEADS,
        "num_blocks": m.BLOCKS, "output_size": m.SIZE, "cnn_module_kernel": m.KERNEL,
        "right_context": m.RIGHT,
        "subsampling_factor": 4, "vocab_size": VOCAB,
    }  # fmt: skip
    return describe(path, described)


class Nemo(nn.Module):
    """Blank last; the window is longer than the stride."""

    WINDOW, SHIFT, CHANNEL, TIME = 25, 16, (2, 3, 4), (2, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        self.logits = Sharp(VOCAB - 1, -16.635532, 0.7)

    def forward(
        self, signal: Tensor, length: Tensor, channel: Tensor, time: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """signal (N, 80, 25) → log_probs (N, 4, V)."""
        x = signal.transpose(1, 2)
        share = (filled.to(x.dtype) / 3).reshape(-1, 1, 1)
        memory = share * (channel.mean() + time.mean()) + (length - self.WINDOW).to(x.dtype).reshape(-1, 1, 1)
        y = self.logits(x[:, : self.SHIFT]) + memory * torch.linspace(-1, 1, VOCAB)
        heard = (x.mean() - self.logits.floor) * 0.02
        return (
            torch.log_softmax(4 * y, dim=-1), length // 6, channel * 0.5 + heard, time * 0.25 + heard,
            (filled + 1).clamp(max=3),
        )  # fmt: skip


def write_nemo(path: Path, **changed: str) -> Path:
    """As the export script of NeMo's streaming FastConformer with its CTC head."""
    m = Nemo().eval()
    inputs = (
        torch.rand(1, BINS, m.WINDOW), torch.tensor([m.WINDOW]), torch.zeros(1, *m.CHANNEL),
        torch.zeros(1, *m.TIME), torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    caches = ["cache_last_channel", "cache_last_time", "cache_last_channel_len"]
    names = ["audio_signal", "length", *caches]
    outputs = ["logprobs", "encoded_lengths", *(f"{name}_next" for name in caches)]
    dynamic = {n: {0: "N"} for n in [*names, *outputs]}
    dynamic["audio_signal"] |= {2: "T"}
    export(m, inputs, path, (names, outputs), dynamic)
    dims = {
        f"{caches[i]}_dim{k + 1}": shape[k] for i, shape in enumerate((m.CHANNEL, m.TIME)) for k in range(3)
    }
    described = {
        "vocab_size": VOCAB - 1, "window_size": m.WINDOW, "chunk_shift": m.SHIFT, "normalize_type": "",
        "subsampling_factor": 4, "model_type": "EncDecHybridRNNTCTCBPEModel", **dims,
    }  # fmt: skip
    return describe(path, {**described, **changed})


def export(
    model: nn.Module, inputs: Any, path: Path, names: tuple[list[str], list[str]], dynamic: Any
) -> None:
    """By tracing, as those scripts do; `names` of inputs and outputs."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, inputs, str(path), dynamo=False, opset_version=17, input_names=names[0],
            output_names=names[1], dynamic_axes=dynamic,
        )  # fmt: skip


def describe(path: Path, values: dict[str, Any]) -> Path:
    """Write the metadata."""
    model = onnx.load(path)
    set_metadata(model, values)
    onnx.save(model, path)
    return path


def write_tokens(path: Path, blank: str = "<blk>", last: bool = False) -> Path:
    """tokens.txt of the models here."""
    symbols = [*SYMBOLS, blank] if last else [blank, *SYMBOLS]
    path.write_text("".join(f"{s} {i}\n" for i, s in enumerate(symbols)), encoding="utf-8")
    return path
