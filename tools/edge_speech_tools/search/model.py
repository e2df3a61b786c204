"""A point of the search space as a job: the model built anew, and the passes that make its artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from torch import Tensor
from torch.nn import functional

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models, supernet
from edge_speech.training.checkpoint import LoadedModel
from edge_speech.training.scales import scales_from_plain, scales_to_plain
from edge_speech_tools.cache import key_of
from edge_speech_tools.calibration import CalibrationSet, calibrate
from edge_speech_tools.contract import check_contract
from edge_speech_tools.job import Job
from edge_speech_tools.keys import recordings_print, tools_print
from edge_speech_tools.passes import Pass, PassResult, Source
from edge_speech_tools.plan import narrowed, ordered_passes
from edge_speech_tools.prune import ratio as pruning
from edge_speech_tools.quantize import int8_static
from edge_speech_tools.search.space import RATIOS, ModelSpace, Settings, Space, groups_of

# Parameters with a value for each distance within reach, which a chunk's length changes at both ends.
DISTANCES = "distance_bias"
# Channels left by pruning are a multiple of it, so that int8 fills the units which multiply.
TILE = 16


@dataclass(frozen=True)
class SparingInt8:
    """int8 weights and activations, but of the layers in `keep`."""

    keep: tuple[str, ...]
    BACKEND: ClassVar[str] = int8_static.BACKEND
    PRECISION: ClassVar[str] = int8_static.PRECISION
    NEEDS: ClassVar[tuple[str, ...]] = int8_static.NEEDS
    NEEDS_CALIBRATION: ClassVar[bool] = int8_static.NEEDS_CALIBRATION

    def Config(self) -> int8_static.Config:
        """The pass's settings, by the name that passes have for them."""
        return int8_static.Config(keep=self.keep)

    def run(self, source: Source) -> PassResult:
        """As `int8_static.run`."""
        return int8_static.run(source, self.Config())


# -- what can be done to a checkpoint -----------------------------------------------------------------------


def model_space(name: str, job: Job) -> ModelSpace:
    """What the search may do to this job's model."""
    loaded = job.loaded
    trained = loaded.supernet
    return ModelSpace(
        name=name,
        chunks=_chunks(job),
        ratios=RATIOS if job.calibration is not None and can_prune(loaded) else RATIOS[:1],
        subnetwork={key: _plain_first(values, loaded.config[key]) for key, values in trained.items()},
        groups=tuple(groups_of(loaded.model)),
    )


def _plain_first(values: Sequence[int], plain: int) -> tuple[int, ...]:
    return (plain, *(value for value in values if value != plain))


def _chunks(job: Job) -> tuple[int, ...]:
    """Chunk lengths in frames that the model can be built with, its own first."""
    own, factor = job.spec.chunk_frames, job.spec.subsampling_factor
    asked = job.config.search.chunk_ms if job.config.search else ()
    shift_ms = job.line.frontend.frame_shift_ms
    frames = [round(ms / shift_ms) for ms in asked] or [own // 2, 2 * own]
    fit = [own, *(n for n in frames if n > 0 and n % factor == 0 and _can_rechunk(job.loaded, n))]
    if asked and (odd := [ms for ms, n in zip(asked, frames, strict=True) if n not in fit]):
        raise InputError(
            f"--search-chunk-ms has {odd[0]:g}, which {job.config.model} cannot have; it has "
            f"{own * shift_ms:g}, and may take other multiples of {factor * shift_ms:g}"
        )
    return tuple(dict.fromkeys(fit))


def _can_rechunk(loaded: LoadedModel, chunk_frames: int) -> bool:
    try:
        rechunked(loaded, chunk_frames)
    except InputError:
        return False
    return True


def can_prune(loaded: LoadedModel) -> bool:
    """Whether any of the ratios can be reached."""
    try:
        pruning.aim_of(loaded, RATIOS[1], pruning.Config(tile=TILE))
    except InputError:
        return False
    return True


# -- doing it -----------------------------------------------------------------------------------------------


def subnetwork(loaded: LoadedModel, changes: Mapping[str, int]) -> LoadedModel:
    """The network of these settings out of one trained with shared weights. Raises InputError."""
    if all(loaded.config[field] == value for field, value in changes.items()):
        return loaded
    return supernet.subnetwork(loaded, dict(changes))


def pruned(loaded: LoadedModel, ratio: float, features: Sequence[FloatArray]) -> LoadedModel:
    """Less `ratio` of the parameters, those that matter least on features (T, F). Raises InputError."""
    if not ratio:
        return loaded
    return pruning.prune_to(loaded, ratio, features, pruning.Config(tile=TILE))


def rechunked(loaded: LoadedModel, chunk_frames: int) -> LoadedModel:
    """The same weights in chunks of another length; scales stay, as layers and what they hear are the same.

    Where attention knows distances, those within a longer chunk that no training saw take after the farthest
    that one did. Raises InputError where the architecture has no such setting or cannot be built with it.
    """
    if loaded.config.get("chunk_frames") == chunk_frames:
        return loaded
    config = {**loaded.config, "chunk_frames": chunk_frames}
    model = models.build(loaded.architecture, config)
    state = loaded.model.state_dict()
    for name, value in model.state_dict().items():
        if name in state and name.endswith(DISTANCES):
            state[name] = _farther(state[name], (value.shape[-1] - state[name].shape[-1]) // 2)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the weights of this {loaded.architecture} are of one chunk length") from error
    model.eval()
    metrics = {k: v for k, v in loaded.metrics.items() if not k.startswith("dev_")}
    return replace(loaded, model=model, config=config, metrics=metrics)


def _farther(bias: Tensor, rows: int) -> Tensor:
    """A bias (H, distances) with so many distances more, or fewer, at both ends."""
    if rows < 0:
        return bias[:, -rows:rows]
    return functional.pad(bias, (rows, rows), mode="replicate")


def job_of(base: Job, given: Job, space: Space, settings: Settings) -> Job:
    """The job of making and judging one point: `base` is its checkpoint's, WER is against the model of
    `given`. Raises InputError or CheckFailed."""
    smaller = _smaller(base, settings)
    if settings.precision == int8_static.PRECISION:
        smaller = _scaled(base, smaller, settings)
    loaded = rechunked(smaller, settings.chunk_frames)
    spec = check_contract(loaded.model, len(loaded.tokens), base.line.frontend.num_features)
    passes = {**base.passes, **_sparing(loaded, settings)}
    own = space.passes[settings.precision]
    candidates = [n for n in base.plan.candidates if n == own or passes[n].BACKEND != space.backend]
    plan = narrowed(base.plan, given.config, base.target, passes, candidates)
    keys = replace(base.keys, checkpoint=_identity(base, settings), passes=passes)
    made = replace(base, loaded=loaded, spec=spec, passes=passes, plan=plan, keys=keys)
    return replace(made, config=given.config, given=given)


def alone(job: Job, space: Space, settings: Settings) -> Job:
    """The same job, less what it makes for other engines or to compare with; the artifact comes last."""
    passes = ordered_passes([space.passes[settings.precision]], job.passes)
    return replace(job, plan=replace(job.plan, passes=tuple(passes)))


def _smaller(base: Job, settings: Settings) -> LoadedModel:
    features: Sequence[FloatArray] = ()
    if base.calibration is not None:
        features = CalibrationSet(base.calibration.recordings[: pruning.RECORDINGS], base.line.frontend)
    return pruned(subnetwork(base.loaded, settings.subnetwork), settings.pruning_ratio, features)


def _scaled(base: Job, loaded: LoadedModel, settings: Settings) -> LoadedModel:
    """With scales measured once for all chunk lengths and all choices of layers."""
    if loaded.quantization or base.calibration is None:
        return loaded
    features = CalibrationSet(base.calibration.recordings, base.line.frontend)

    def measured() -> dict[str, Any]:
        return scales_to_plain(calibrate(loaded.model, loaded.model.spec, features))  # type: ignore[union-attr, arg-type]

    own = replace(settings, chunk_frames=base.spec.chunk_frames)
    key = key_of(_identity(base, own), recordings_print(base.calibration), tools_print())
    return replace(loaded, quantization=scales_from_plain(base.cache.value("scales", key, measured)))


def _sparing(loaded: LoadedModel, settings: Settings) -> dict[str, Pass]:
    if not settings.fp32:
        return {}
    groups = groups_of(loaded.model)
    keep = tuple(name for group in settings.fp32 for name in groups.get(group, ()))
    return {int8_static.__name__.rpartition(".")[2]: cast(Pass, SparingInt8(keep))}


def _identity(base: Job, settings: Settings) -> str:
    """What stands for the checkpoint's SHA-256 in keys: that itself where the model is as it was."""
    whole = {field: base.loaded.config[field] for field in settings.subnetwork}
    asked = [dict(settings.subnetwork), settings.pruning_ratio, settings.chunk_frames]
    if asked == [whole, 0.0, base.spec.chunk_frames]:
        return base.keys.checkpoint
    return key_of("searched", base.keys.checkpoint, asked, recordings_print(base.calibration))
