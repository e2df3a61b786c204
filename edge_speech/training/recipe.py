"""A recipe: one TOML file that says everything a training run depends on."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edge_speech.errors import InputError
from edge_speech.target import read_toml
from edge_speech.training.fake_quantization import Quantization
from edge_speech.training.weight_sharing import Supernet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Compose:
    """Join `min_count` to `max_count` recordings of one speaker.

    A share `gapless` of the joints has no silence, the others up to `gap_s` seconds; up to `edge_s` seconds
    stand before and after. Each recording is scaled by up to `gain_db` either way.
    """

    min_count: int = 1
    max_count: int = 7
    gap_s: float = 0.3
    gapless: float = 0.3
    edge_s: float = 0.4
    gain_db: float = 4.0


@dataclass(frozen=True)
class Source:
    """One manifest to draw from, `weight` times as often as a source of weight 1.

    A manifest that has but one split is parted by the places of its utterances: `fold = "0/10"` keeps every
    tenth from the first, `except_fold = "0/10"` the others. `alignment` is a CTM file, relative to
    `data.root`, of the phones of its recordings and when they are said, for `Auxiliary`.
    A source that is `keyword_free` teaches that there is nothing to hear, whatever its texts are, which it
    need not have; with `cut_s` a random part of so many seconds of each recording.
    With `surround_s = [least, most]` each recording stands, in training, between two stretches of so many
    seconds, of recordings of the keyword-free sources or silent; see `training.compose.surround`.
    """

    manifest: str
    weight: float = 1.0
    in_vocabulary_only: bool = False
    compose: Compose | None = None
    fold: str = ""
    except_fold: str = ""
    alignment: str = ""
    keyword_free: bool = False
    cut_s: float = 0.0
    surround_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.surround_s and not (
            len(self.surround_s) == 2 and 0 <= self.surround_s[0] <= self.surround_s[1]
        ):
            raise InputError(
                f"recipe: {self.manifest} has surround_s = {list(self.surround_s)}; allowed: two numbers of "
                "seconds, the lower first"
            )
        if self.cut_s < 0 or (self.cut_s and not self.keyword_free):
            raise InputError(
                f"recipe: {self.manifest} has cut_s = {self.cut_s}; allowed: seconds above 0, of a source "
                "with keyword_free = true, since no one knows the text of a part"
            )
        if self.fold and self.except_fold:
            raise InputError(
                f"recipe: {self.manifest} has fold = {self.fold!r} and except_fold = {self.except_fold!r}; "
                "a source takes one of them"
            )
        self.keeps(0)

    def keeps(self, place: int) -> bool:
        """Whether the utterance at this place of the manifest, from 0, belongs to the source."""
        if not (self.fold or self.except_fold):
            return True
        number, count = _fold(self.fold or self.except_fold, self.manifest)
        return (place % count == number) is bool(self.fold)


@dataclass(frozen=True)
class Data:
    """Where recordings come from. Manifests are relative to `root`, `root` to the working folder.

    `units` are what the model writes, see `training.tokens`; they are those of `vocabulary`, or where that is
    empty those of the training texts. "bpe" learns `vocabulary_size` of them, blank included. `noise` and
    `rirs` are manifests of background noise and of room impulse responses, for `Augment`. `cache` is a folder
    that keeps decoded recordings for workers and later runs; it changes nothing but the time it takes.
    """

    train: tuple[Source, ...]
    root: str = "data"
    dev: tuple[Source, ...] = ()
    noise: str = ""
    rirs: str = ""
    cache: str = ""
    units: str = "words"
    vocabulary: tuple[str, ...] = ()
    vocabulary_size: int = 500

    def __post_init__(self) -> None:
        surrounded = [source.manifest for source in self.train if source.surround_s]
        if surrounded and not any(source.keyword_free for source in self.train):
            raise InputError(
                f"recipe: {surrounded[0]} has surround_s, but there is nothing to put around its recordings; "
                "give a source in data.train keyword_free = true"
            )


@dataclass(frozen=True)
class Augment:
    """What is done to a recording before it is learnt from; 0 switches a thing off. See docs/augmentation.md.

    `speeds` are factors of tempo and pitch. With `reverb_probability` a recording is put into a room of
    `data.rirs`, or, where there are none, into a made-up one whose sound falls by 60 dB in `rt60_s` seconds
    and whose direct sound is `reverb_direct_db` above the rest. Noise is added with `noise_probability` at
    a signal-to-noise ratio drawn from `noise_snr_db`. With `codec_probability` one of `codecs` encodes and
    decodes, with `telephone_probability` a telephone line does. `gain_db` is the spread around the recorded
    level; `tilt_db` is the size of a random smooth channel response. Masks are SpecAugment's
    (https://arxiv.org/abs/1904.08779), in frames and mel bins. Masks and tilt are of features and
    leave the samples that a front end "waveform" gives as they are.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    reverb_probability: float = 0.0
    rt60_s: tuple[float, float] = (0.2, 0.8)
    reverb_direct_db: tuple[float, float] = (0.0, 15.0)
    noise_probability: float = 0.5
    noise_snr_db: tuple[float, float] = (5.0, 40.0)
    codec_probability: float = 0.0
    codecs: tuple[Literal["mu-law", "a-law", "vorbis", "opus"], ...] = ("mu-law", "a-law", "vorbis")
    telephone_probability: float = 0.0
    gain_db: float = 10.0
    tilt_db: float = 6.0
    time_masks: int = 2
    time_mask_frames: int = 5
    frequency_masks: int = 2
    frequency_mask_bins: int = 8

    def __post_init__(self) -> None:
        for name in ("reverb", "noise", "codec", "telephone"):
            self._check(f"{name}_probability", lambda value: 0 <= value <= 1, "from 0 to 1")
        for name in ("rt60_s", "reverb_direct_db", "noise_snr_db"):
            self._check(name, lambda v: len(v) == 2 and v[0] <= v[1], "two numbers, the lower first")
        self._check("rt60_s", lambda value: 0.01 <= value[0] and value[1] <= 10, "from 0.01 to 10 seconds")
        self._check("codecs", bool, "one codec or more")
        self._check("speeds", lambda v: v and min(v) > 0, "one number or more, each above 0")

    def _check(self, name: str, holds: Callable[[Any], bool], allowed: str) -> None:
        value = getattr(self, name)
        if not holds(value):
            raise InputError(f"recipe: augment.{name} is {value}; allowed: {allowed}")


@dataclass(frozen=True)
class Auxiliary:
    """A second loss, of the phones in the sources' `alignment`, on layer number `layer` of the encoder.

    It has `weight` of the whole.
    """

    layer: int
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise InputError(f"recipe: auxiliary.weight is {self.weight}; it must be between 0 and 1")


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher, for objective = "distillation".

    `teacher`, relative to `data.root`, is a model.pt, or a file that torchaudio publishes, with its name in
    torchaudio.pipelines as `bundle`. `frame_weight` is the share of the divergence from the teacher's rows,
    softened by `temperature`, `sequence_weight` that of its texts; the recordings' texts have what is left.
    """

    teacher: str
    bundle: str = ""
    frame_weight: float = 0.5
    sequence_weight: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        weights = self.frame_weight, self.sequence_weight
        if min(weights) < 0 or not 0 < sum(weights) <= 1:
            raise InputError(
                f"recipe: distillation.frame_weight and sequence_weight are {weights[0]} and {weights[1]}; "
                "they must not be negative, and their sum must be above 0 and at most 1"
            )
        if not self.temperature > 0:
            raise InputError(f"recipe: distillation.temperature is {self.temperature}; it must be above 0")


@dataclass(frozen=True)
class Regression:
    """The loss of objective "regression": mse_weight * squared error + l1_weight * absolute error."""

    mse_weight: float = 1.0
    l1_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.mse_weight, self.l1_weight) < 0 or self.mse_weight + self.l1_weight == 0:
            raise InputError(
                f"recipe: regression.mse_weight is {self.mse_weight} and l1_weight {self.l1_weight}; neither "
                "may be negative, one must be above 0"
            )


@dataclass(frozen=True)
class Optimizer:
    """AdamW, a learning rate on a schedule after a linear warm-up, gradient clipping by norm.

    `schedule`: "cosine" and "onecycle" fall to zero at the last step; "plateau" multiplies the rate by
    `plateau_factor` after `plateau_patience` evaluations in a row without a better dev error rate.
    A batch is `batch_size` utterances or, where `batch_s` is set, utterances of like length that fill so many
    seconds with their padding. A step adds up the gradients of `accumulate` batches before it moves the
    weights: the step of one batch `accumulate` times as large, but that batch norm sees each by itself.
    `early_stopping` ends the run after so many evaluations in a row without a better dev error rate, and
    model.pt then holds the best weights instead of the last; 0 never does.
    """

    steps: int = 10000
    batch_size: int = 24
    batch_s: float = 0.0
    accumulate: int = 1
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "onecycle", "plateau"] = "cosine"
    warmup_steps: int = 500
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    early_stopping: int = 0
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"recipe: optimizer.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("batch_s", "warmup_steps", "weight_decay", "plateau_patience", "early_stopping"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"recipe: optimizer.{name} is {getattr(self, name)}; it must not be negative"
                )
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"recipe: optimizer.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.ema_decay < 1:
            raise InputError(
                f"recipe: optimizer.ema_decay is {self.ema_decay}; it must be from 0 to less than 1"
            )
        if not 0 < self.plateau_factor < 1:
            raise InputError(
                f"recipe: optimizer.plateau_factor is {self.plateau_factor}; it must be between 0 and 1"
            )


@dataclass(frozen=True)
class Run:
    """How the run is carried out; nothing here changes what is learnt but `seed` and the rounding.

    `precision` is of the products inside the model; weights, loss and optimiser stay float32. "auto" is fp32
    on a CPU, and on a GPU bf16 where it has it, else fp16. `tracking` names files of `training.trackers`;
    left out it is tensorboard, where that is installed.
    """

    seed: int = 1
    threads: int = 1
    workers: int = 1
    log_every: int = 50
    evaluate_every: int = 500
    checkpoint_every: int = 200
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    tracking: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """The whole file. `model` goes to `models.start`, `frontend` to `frontends.frontend_for`."""

    data: Data
    architecture: str = "conformer"
    objective: str = "ctc"
    model: dict[str, Any] = field(default_factory=dict)
    frontend: dict[str, Any] = field(default_factory=lambda: {"type": "fbank"})
    augment: Augment = Augment()
    auxiliary: Auxiliary | None = None
    distillation: Distillation | None = None
    regression: Regression | None = None
    supernet: Supernet | None = None
    quantization: Quantization | None = None
    optimizer: Optimizer = Optimizer()
    run: Run = Run()

    def __post_init__(self) -> None:
        sections = {"auxiliary": "ctc", "distillation": "distillation", "regression": "regression"}
        for section, objective in sections.items():
            if getattr(self, section) is not None and self.objective != objective:
                raise InputError(
                    f"recipe: [{section}] needs objective = {objective!r}, got {self.objective!r}"
                )
        if self.quantized and "weights" not in self.model:
            raise InputError("recipe: [quantization] goes on from a model; give --set model.weights=model.pt")
        if self.supernet is not None and (self.quantized or self.objective not in ("ctc", "distillation")):
            raise InputError("recipe: [supernet] goes with objective 'ctc' or 'distillation', unquantised")

    @property
    def quantized(self) -> bool:
        """Whether layers are rounded while they learn."""
        return self.quantization is not None and self.quantization.enabled


def _fold(text: str, manifest: str) -> tuple[int, int]:
    """Number and count of folds in "0/10"."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not number < count or count < 2:
        raise InputError(
            f"recipe: {manifest} has the fold {text!r}; allowed: K/N with N from 2 and K from 0 to N - 1, "
            'for example "0/10"'
        )
    return number, count


def read_recipe(path: Path, settings: list[str]) -> Recipe:
    """Read a recipe and apply `section.key=value` settings (TOML values; bare words are strings).

    Raises InputError on a missing file, bad TOML, an unknown key or a value of the wrong type.
    """
    table = read_toml(path)
    for setting in settings:
        _apply(table, setting)
    recipe: Recipe = _build(Recipe, table, "")
    return recipe


def _apply(table: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise InputError(f"--set takes key=value, got {setting!r}; for example --set data.root=/path")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {key}: {section!r} is a value, not a section")
    table[last] = value


def _build(kind: Any, table: Any, where: str) -> Any:
    """Turn plain TOML data into the dataclass `kind`, checking names and types."""
    if not isinstance(table, dict):
        raise InputError(f"recipe: [{where}] must be a section, got {table!r}")
    hints = get_type_hints(kind)
    if unknown := sorted(set(table) - set(hints)):
        raise InputError(f"recipe: unknown key {where + unknown[0]!r}; known: {', '.join(sorted(hints))}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"recipe: {where + missing[0]!r} is missing")
    return kind(**{name: _value(hints[name], value, where + name) for name, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):  # X | None
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(
                f"recipe: {where} must be one of {', '.join(map(str, get_args(hint)))}, got {value!r}"
            )
        return value
    if is_dataclass(hint):
        return _build(hint, value, where + ".")
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InputError(f"recipe: {where} must be a list, got {value!r}")
        return tuple(_value(get_args(hint)[0], item, where) for item in value)
    plain = get_origin(hint) or hint
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain is float and isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"recipe: {where} is {value}; it must be a finite number")
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise InputError(f"recipe: {where} must be {plain.__name__}, got {value!r}")
    return value
