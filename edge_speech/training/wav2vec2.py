"""wav2vec 2.0 and HuBERT, which hear a whole recording before they answer: to fine-tune, and to teach.

wav2vec 2.0: Baevski et al. 2020, https://arxiv.org/abs/2006.11477; HuBERT: Hsu et al. 2021,
https://arxiv.org/abs/2106.07447. The model is torchaudio's, and weights come from a file as torchaudio
publishes them. Its convolutional feature extractor stays as it was pre-trained: it is never moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from edge_speech.errors import InputError
from edge_speech.features import SILENCE
from edge_speech.training.checkpoint import LoadedModel, load_plain
from edge_speech.training.chunked import LimitedConfig
from edge_speech.training.frontends import WaveformConfig, frontend_to_dict
from edge_speech.training.models import Model, config_of
from edge_speech.training.tokens import BLANK, WORD_START
from edge_speech.training.torchaudio_import import import_torchaudio

# (kernel, stride) of the feature extractor in every published model: 320 samples to a row.
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
ROW_SAMPLES = 320
# A row sees 400 samples: these zeros after a waveform give a row to all 320 that it has begun.
OVERHANG = 80
# Heads cannot be seen in weights; those of every published width.
HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}


@dataclass(frozen=True)
class Config(LimitedConfig):
    """Dimensions of the model, all but `num_heads` and `dropout` found in the weights.

    `layer_norm` is the variant of the larger models: normalised waveforms, layer norm after each convolution
    and before each part of the Transformer; the others have group norm after the first convolution, and layer
    norm after each part. `num_features` is that of the front end. Raises ValueError.
    """

    LIMITS: ClassVar[dict[str, int]] = {
        **LimitedConfig.LIMITS,
        "conv_dim": 4096,
        "d_model": 4096,
        "num_layers": 64,
        "num_heads": 64,
        "feed_forward_dim": 16384,
        "position_kernel": 1024,
        "position_groups": 64,
    }

    num_features: int = WaveformConfig.num_features
    conv_dim: int = 512
    conv_bias: bool = False
    layer_norm: bool = False
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_dim: int = 3072
    position_kernel: int = 128
    position_groups: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_features != WaveformConfig.num_features:
            raise ValueError(f"num_features is {self.num_features}; allowed is {WaveformConfig.num_features}")
        for name in ("num_heads", "position_groups"):
            if self.d_model % getattr(self, name):
                raise ValueError(f"d_model {self.d_model} is not a multiple of {name} {getattr(self, name)}")
        for name in ("conv_bias", "layer_norm"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are true, false")


_LARGE = Config(d_model=1024, num_layers=24, num_heads=16, feed_forward_dim=4096)
SIZES = {"base": Config(), "large": _LARGE, "large_lv60k": replace(_LARGE, layer_norm=True, conv_bias=True)}


def build(config: Config) -> Wav2Vec2:
    """Build the model with fresh weights. Raises InputError where torchaudio is not installed."""
    return Wav2Vec2(config)


class Wav2Vec2(Model):
    """Frames of samples (B, T, 160) → log_probs (B, ceil(T / 2), V)."""

    subsampling_factor = ROW_SAMPLES // WaveformConfig.num_features

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = _torchaudio_wav2vec2(config)
        self.model.feature_extractor.requires_grad_(False)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Nothing: waveforms are read as they are, or each is normalised by itself."""

    def parallel(self, features: Tensor) -> Tensor:
        """Frames of samples (B, T, 160), padded with `features.SILENCE`, which no frame of sound is →
        log_probs (B, ceil(T / 2), V). What pads an utterance changes nothing in its rows."""
        frames = (features != SILENCE).any(dim=2).sum(dim=1)
        return self.log_probs(features.flatten(1), frames * WaveformConfig.num_features)

    def log_probs(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """waveforms (B, samples) at 16 kHz, of which lengths (B,) count → log_probs
        (B, ceil(samples / 320), V)."""
        total = -(-waveforms.shape[1] // ROW_SAMPLES)
        rows = ((lengths + ROW_SAMPLES - 1) // ROW_SAMPLES).clamp(min=1)
        every = [self._extract(w[:n]) for w, n in zip(waveforms, lengths.tolist(), strict=True)]
        features = pad_sequence(every, batch_first=True)
        logits = self.model.aux(self.model.encoder(features, rows))[:, :total]
        return functional.log_softmax(functional.pad(logits, (0, 0, 0, total - logits.shape[1])), dim=-1)

    @torch.no_grad()
    def _extract(self, waveform: Tensor) -> Tensor:
        """waveform (samples,) → (ceil(samples / 320), conv_dim), one row at least.

        One utterance at a time: group norm is over all of its time, and padding would take part in it.
        """
        samples = len(waveform)
        if self.config.layer_norm and samples:
            waveform = functional.layer_norm(waveform, (samples,))
        fill = max(ROW_SAMPLES - samples, -samples % ROW_SAMPLES) + OVERHANG
        extracted: Tensor = self.model.feature_extractor(functional.pad(waveform, (0, fill))[None], None)[0]
        return extracted[0]


def fine_tune(path: Path, settings: dict[str, Any]) -> Wav2Vec2:
    """The model of a file of torchaudio's weights, with a fresh output layer of `settings["vocab_size"]`.

    `settings` may hold `dropout`, and `num_heads` where the width is not a published one. Raises InputError.
    """
    state = _read(path)
    config = _config_of(path, state, settings)
    fresh = torch.nn.Linear(config.d_model, config.vocab_size)
    state["aux.weight"], state["aux.bias"] = fresh.weight.detach(), fresh.bias.detach()
    return _with_weights(path, config, state)


def load(path: Path, bundle: str) -> LoadedModel:
    """A recogniser as torchaudio publishes it: its file and the name that it has in torchaudio.pipelines,
    such as "WAV2VEC2_ASR_BASE_960H", which says what its outputs are. Raises InputError."""
    pipelines = import_torchaudio("torchaudio.pipelines")
    published = getattr(pipelines, bundle, None)
    if not isinstance(published, pipelines.Wav2Vec2ASRBundle):
        names = [
            n for n in pipelines.__all__ if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2ASRBundle)
        ]
        raise InputError(f"unknown bundle {bundle!r}; there are {', '.join(sorted(names))}")
    state = _read(path)
    tokens = [{"|": WORD_START}.get(label, label) for label in published.get_labels(blank=BLANK)]
    outputs = _outputs(path, state, len(tokens), published._remove_aux_axis)
    model = _with_weights(path, _config_of(path, outputs, {"vocab_size": len(tokens)}), outputs)
    frontend = frontend_to_dict(WaveformConfig())
    return LoadedModel(model.eval(), tokens, frontend, "wav2vec2", config_of(model))


def _outputs(path: Path, state: dict[str, Tensor], count: int, unused: Sequence[int]) -> dict[str, Tensor]:
    """`state` with `count` outputs: published files hold more, `unused`, which torchaudio takes out too."""
    if "aux.weight" not in state:
        raise InputError(f"{path} has no output layer; fine-tune it first, with architecture = 'wav2vec2'")
    found = len(state["aux.weight"])
    if found == count:
        return state
    kept = [i for i in range(found) if i not in unused]
    if len(kept) != count:
        raise InputError(
            f"{path} has {found} outputs, the bundle {count}; name the bundle that the file is of"
        )
    return {**state, **{name: state[name][kept] for name in ("aux.weight", "aux.bias")}}


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torchaudio's weights, as float32. Raises InputError."""
    state = load_plain(path, "a file of torchaudio's weights")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{path} holds no weights by name; save the state_dict of torchaudio's Wav2Vec2Model"
        )
    if any("rel_attn_embed" in name for name in state):
        raise InputError(f"{path} holds WavLM; wav2vec 2.0 and HuBERT are read")
    return {str(name): value.float() for name, value in state.items()}


def _config_of(path: Path, state: dict[str, Tensor], settings: dict[str, Any]) -> Config:
    """What the shapes in `state` say, with `settings`. Raises InputError."""
    if odd := sorted(set(settings) - {"num_features", "vocab_size", "dropout", "num_heads"}):
        raise InputError(f"wav2vec2 finds {odd[0]!r} in its weights; set dropout or num_heads or neither")
    try:
        found = _shapes(state)
        heads = {"num_heads": HEADS[found["d_model"]]} if found["d_model"] in HEADS else {}
        if not heads and "num_heads" not in settings:
            raise InputError(
                f"{path} is {found['d_model']} wide, which is of no published model; set model.num_heads"
            )
        return Config(**{**found, **heads, **settings})
    except (KeyError, IndexError) as error:
        raise InputError(
            f"{path} lacks {error}; save the state_dict of torchaudio's Wav2Vec2Model"
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def _shapes(state: dict[str, Tensor]) -> dict[str, Any]:
    """The dimensions that weights show. Raises KeyError and IndexError on those of something else."""
    extractor, transformer = "feature_extractor.conv_layers", "encoder.transformer"
    position = f"{transformer}.pos_conv_embed.conv"
    # What torch's weight_norm called it before 2.0, and since.
    name = "weight_v" if f"{position}.weight_v" in state else "parametrizations.weight.original1"
    d_model, per_group, kernel = _shape(state, f"{position}.{name}", 3)
    layers = [name for name in state if name.endswith(".feed_forward.intermediate_dense.weight")]
    return {
        "conv_dim": _shape(state, f"{extractor}.0.conv.weight", 3)[0],
        "conv_bias": f"{extractor}.0.conv.bias" in state,
        "layer_norm": f"{extractor}.1.layer_norm.weight" in state,
        "d_model": d_model,
        "num_layers": len(layers),
        "feed_forward_dim": _shape(
            state, f"{transformer}.layers.0.feed_forward.intermediate_dense.weight", 2
        )[0],
        "position_kernel": kernel,
        "position_groups": d_model // max(1, per_group),
    }


def _shape(state: dict[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if state[name].ndim != dimensions:
        raise IndexError(f"{name} of {dimensions} dimensions")
    return tuple(state[name].shape)


def _with_weights(path: Path, config: Config, state: dict[str, Tensor]) -> Wav2Vec2:
    """Raises InputError where the tensors do not fit each other."""
    try:
        with torch.device("meta"):
            model = Wav2Vec2(config)
        model.model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit a wav2vec 2.0 model: {reason}") from error
    return model


def _torchaudio_wav2vec2(config: Config) -> Any:
    return import_torchaudio("torchaudio.models").wav2vec2_model(
        extractor_mode="layer_norm" if config.layer_norm else "group_norm",
        extractor_conv_layer_config=[(config.conv_dim, *shape) for shape in CONVOLUTIONS],
        extractor_conv_bias=config.conv_bias,
        encoder_embed_dim=config.d_model,
        encoder_projection_dropout=config.dropout,
        encoder_pos_conv_kernel=config.position_kernel,
        encoder_pos_conv_groups=config.position_groups,
        encoder_num_layers=config.num_layers,
        encoder_num_heads=config.num_heads,
        encoder_attention_dropout=config.dropout,
        encoder_ff_interm_features=config.feed_forward_dim,
        encoder_ff_interm_dropout=config.dropout,
        encoder_dropout=config.dropout,
        encoder_layer_norm_first=config.layer_norm,
        encoder_layer_drop=0.0,
        aux_num_out=config.vocab_size,
    )
