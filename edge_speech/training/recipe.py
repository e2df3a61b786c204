"""A recipe: one TOML file that says everything a training run depends on."""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edge_speech.errors import InputError
from edge_speech.target import read_toml

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
    """One manifest to draw from, `weight` times as often as a source of weight 1."""

    manifest: str
    weight: float = 1.0
    in_vocabulary_only: bool = False
    compose: Compose | None = None


@dataclass(frozen=True)
class Data:
    """Where recordings come from. Manifests are relative to `root`, `root` to the working folder.

    `units` are what the model writes, see `training.tokens`; they are those of `vocabulary`, or where that is
    empty those of the training texts. "bpe" learns `vocabulary_size` of them, blank included.
    """

    train: tuple[Source, ...]
    root: str = "data"
    dev: tuple[Source, ...] = ()
    noise: str = ""
    units: str = "words"
    vocabulary: tuple[str, ...] = ()
    vocabulary_size: int = 500


@dataclass(frozen=True)
class Augment:
    """What is done to a recording before it is learnt from; 0 switches a thing off.

    `speeds` are factors of tempo and pitch; `gain_db` is the spread around the recorded level; noise is
    added with probability `noise_probability` at a signal-to-noise ratio drawn from `noise_snr_db`; `tilt_db`
    is the size of a random smooth channel response. Masks are SpecAugment's
    (https://arxiv.org/abs/1904.08779), in frames and mel bins.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    gain_db: float = 10.0
    noise_probability: float = 0.5
    noise_snr_db: tuple[float, float] = (5.0, 40.0)
    tilt_db: float = 6.0
    time_masks: int = 2
    time_mask_frames: int = 5
    frequency_masks: int = 2
    frequency_mask_bins: int = 8


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
        for name in ("batch_s", "warmup_steps", "plateau_patience", "early_stopping"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"recipe: optimizer.{name} is {getattr(self, name)}; it must not be negative"
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
    """The whole file. `model` goes to `models.build`, `frontend` to `features.frontend_from_dict`."""

    data: Data
    architecture: str = "conformer"
    model: dict[str, Any] = field(default_factory=dict)
    frontend: dict[str, Any] = field(default_factory=lambda: {"type": "fbank"})
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()


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
            raise InputError(f"recipe: {where} must be one of {', '.join(get_args(hint))}, got {value!r}")
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
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise InputError(f"recipe: {where} must be {plain.__name__}, got {value!r}")
    return value
