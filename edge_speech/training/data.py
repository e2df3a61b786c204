"""From manifests to batches of features, the same for the same seed and step however a run was resumed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import (
    SILENCE,
    FbankConfig,
    LogMelConfig,
    resample,
)
from edge_speech.group import ALONE, Group
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.training import augment
from edge_speech.training.audio_cache import AudioCache
from edge_speech.training.bucketing import batch_of_seconds
from edge_speech.training.compose import compose, surround
from edge_speech.training.frontends import TrainingFrontend, WaveformConfig, features_of
from edge_speech.training.phone_labels import UNKNOWN_LABEL, PhoneLabels
from edge_speech.training.recipe import Recipe, Source
from edge_speech.training.tokens import Tokens

# Recordings of a source are kept in memory up to this many samples.
CACHE_SAMPLES = 256 << 20


@dataclass(frozen=True)
class Batch:
    """features (B, T, F) padded with silence; targets one after the other; the lengths (B,) of both.

    `waveforms` (B, samples), for a teacher to hear, are what the features were computed from; else (0, 0).
    `labels` (B, T), where there are alignments, is the number of the phone in each frame; else (0, 0).
    `weight` is what its mean loss counts for in the mean loss of the step.
    """

    features: Tensor
    feature_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    waveforms: Tensor
    waveform_lengths: Tensor
    labels: Tensor
    weight: float = 1.0

    def to(self, device: torch.device) -> Batch:
        """The same, features and targets on `device`; the lengths stay, CTC loss reads them on the host."""
        features, targets = self.features.to(device), self.targets.to(device)
        return replace(self, features=features, targets=targets)


@dataclass(frozen=True)
class Example:
    """features (T, F), token numbers, and where asked for the waveform (samples,) and phone labels (T,)."""

    features: FloatArray
    numbers: Sequence[float]
    waveform: FloatArray | None = None
    labels: npt.NDArray[np.int64] | None = None


class Recordings:
    """The utterances of one source, read, brought to one sample rate and kept: on disk where the recipe has a
    cache, else in memory while there is room."""

    def __init__(
        self, source: Source, root: Path, sample_rate: int, tokens: Tokens, cache: AudioCache | None = None
    ) -> None:
        self.compose, self.cut_s, self.surround_s = source.compose, source.cut_s, source.surround_s
        self.sample_rate = sample_rate
        self.utterances = _usable(source, root, tokens)
        self._on_disk = cache
        self._cache: dict[int, FloatArray] = {}
        self._room = CACHE_SAMPLES
        self._of_speaker: dict[str, list[int]] = defaultdict(list)
        for i, utterance in enumerate(self.utterances):
            self._of_speaker[str(utterance.extra.get("speaker", ""))].append(i)
        self._speakers = sorted(self._of_speaker)

    def waveform(self, index: int) -> FloatArray:
        """Samples of one recording at `sample_rate`."""
        if self._on_disk is not None:
            return self._on_disk.read(self.utterances[index], self.sample_rate)
        if index in self._cache:
            return self._cache[index]
        samples = read_waveform(self.utterances[index], self.sample_rate)
        if len(samples) <= self._room:
            self._room -= len(samples)
            self._cache[index] = samples
        return samples

    def part(self, rng: np.random.Generator, index: int) -> FloatArray:
        """The waveform of one recording, or of the part of it that the source takes."""
        samples, wanted = self.waveform(index), round(self.cut_s * self.sample_rate)
        if not wanted or len(samples) <= wanted:
            return samples
        start = int(rng.integers(len(samples) - wanted + 1))
        return samples[start : start + wanted]

    def draw(self, rng: np.random.Generator, share: float) -> list[int]:
        """Indices of what makes one utterance: one recording, or several of one speaker to join.

        `share` in [0, 1) places the number of recordings between the least and the most.
        """
        if self.compose is None:
            return [int(rng.integers(len(self.utterances)))]
        least, most = self.compose.min_count, self.compose.max_count
        count = least + int(share * (most - least + 1))
        same = self._of_speaker[self._speakers[int(rng.integers(len(self._speakers)))]]
        return [same[i] for i in rng.integers(len(same), size=count)]

    def join(self, rng: np.random.Generator, clips: list[FloatArray]) -> FloatArray:
        """One waveform of the clips that `draw` chose."""
        return clips[0] if self.compose is None else compose(rng, clips, self.sample_rate, self.compose)

    def seconds(self, indices: list[int]) -> float:
        """Length of the recordings that `draw` chose, by their manifest, with the mean of what joins them."""
        known = [self.utterances[i].duration_s for i in indices]
        spoken = sum(
            min(len(self.waveform(i)) / self.sample_rate if s is None else s, self.cut_s or np.inf)
            for i, s in zip(indices, known, strict=True)
        ) + sum(self.surround_s)
        if self.compose is None:
            return spoken
        gap_s = (1 - self.compose.gapless) * self.compose.gap_s / 2
        return spoken + self.compose.edge_s + (len(indices) - 1) * gap_s

    def text(self, indices: list[int]) -> str:
        """What is said in the joined recordings."""
        return " ".join(self.utterances[i].text for i in indices).strip()


@dataclass(frozen=True)
class Draw:
    """What an utterance is made from: recordings of one source, and how fast they are played."""

    source: Recordings
    indices: list[int]
    speed: float

    @property
    def seconds(self) -> float:
        """About how long the utterance will be."""
        return self.source.seconds(self.indices) / self.speed


class TrainingSet:
    """Item `step` is the batch of that training step, drawn and augmented from (seed, step)."""

    def __init__(
        self, recipe: Recipe, tokens: Tokens, frontend: TrainingFrontend, group: Group = ALONE
    ) -> None:
        root, self.group = Path(recipe.data.root), group
        self.recipe, self.tokens, self.frontend = recipe, tokens, frontend
        cache = _cache(recipe)
        self.sources = [Recordings(s, root, frontend.sample_rate, tokens, cache) for s in recipe.data.train]
        weights = np.array([source.weight for source in recipe.data.train])
        self.probabilities = weights / weights.sum()
        self.keyword_free = weights * [source.keyword_free for source in recipe.data.train]
        rate = frontend.sample_rate
        noises, rirs = (_read_sounds(root, name, rate) for name in (recipe.data.noise, recipe.data.rirs))
        self.phones = PhoneLabels.of(recipe) if recipe.auxiliary else None
        self._check_alignments()
        self.distort = augment.Chain(recipe.augment, rate, noises, rirs)

    def __len__(self) -> int:
        return self.recipe.optimizer.steps

    def __getitem__(self, step: int) -> Batch:
        return collate([self._row(step, i, draw) for i, draw in enumerate(self.draws(step))])

    def parts(self, step: int) -> list[Batch]:
        """The rows of this process in the step's up to `accumulate` batches of like size.

        Every process gets equally many parts. One that has no row in a part gets the part's last, which
        then weighs nothing.
        """
        draws, parts = self.draws(step), []
        for numbers in torch.arange(len(draws)).chunk(self.recipe.optimizer.accumulate):
            part = numbers.tolist()
            own = list(self.group.share(part))
            rows = [self._row(step, i, draws[i]) for i in own or part[-1:]]
            parts.append(replace(collate(rows), weight=len(own) / len(draws)))
        return parts

    def draws(self, step: int) -> list[Draw]:
        """What the rows of the step are made from; reads no audio."""
        rng, how = np.random.default_rng([self.recipe.run.seed, step]), self.recipe.optimizer
        if how.batch_s:
            return batch_of_seconds(rng, lambda: self.draw(rng, rng.random()), how.batch_s * how.accumulate)
        share = rng.random()  # one for the whole batch: its strings are of like length and little is padding
        return [self.draw(rng, share) for _ in range(how.batch_size * how.accumulate)]

    def _row(self, step: int, number: int, draw: Draw) -> Example:
        """A row of the step; from numbers of its own, so that a process can leave out those of others."""
        return self.render(np.random.default_rng([self.recipe.run.seed, step, 1 + number]), draw)

    def draw(self, rng: np.random.Generator, share: float) -> Draw:
        """Choose the recordings of an utterance and their speed; reads no audio."""
        source = self.sources[int(rng.choice(len(self.sources), p=self.probabilities))]
        indices = source.draw(rng, share)
        return Draw(source, indices, float(rng.choice(self.recipe.augment.speeds)))

    def render(self, rng: np.random.Generator, draw: Draw) -> Example:
        """A drawn utterance, augmented."""
        source, indices, speed, how = draw.source, draw.indices, draw.speed, self.recipe.augment
        clips = [augment.change_speed(source.part(rng, i), source.sample_rate, speed) for i in indices]
        waveform = source.join(rng, clips)
        if source.surround_s:
            least, most = (round(s * source.sample_rate / speed) for s in source.surround_s)
            waveform = surround(rng, waveform, (least, most), lambda: self._other_speech(rng, speed))
        waveform = self.distort(rng, waveform)
        features = features_of(waveform, self.frontend)
        numbers = self.tokens.encode(source.text(indices))
        assert numbers is not None
        heard = None if self.recipe.distillation is None else waveform
        labels = self._labels(draw, len(features))
        if not len(features) or isinstance(self.frontend, WaveformConfig):
            return Example(features, numbers, heard, labels)
        if _is_natural_log_mel(self.frontend):
            bins = self.frontend.num_mel_bins  # and not the extra features after them
            features[:, :bins] = augment.tilt(rng, features[:, :bins], how)
        return Example(augment.mask(rng, features, how), numbers, heard, labels)

    def _other_speech(self, rng: np.random.Generator, speed: float) -> FloatArray:
        """A recording of a keyword-free source, or the part of it that the source takes."""
        share = self.keyword_free / self.keyword_free.sum()
        source = self.sources[int(rng.choice(len(self.sources), p=share))]
        part = source.part(rng, int(rng.integers(len(source.utterances))))
        return augment.change_speed(part, source.sample_rate, speed)

    def _check_alignments(self) -> None:
        """Raises InputError where a CTM file is not of its source: nothing would be learnt from it."""
        if self.phones is None:
            return
        for source, aligned, what in zip(
            self.sources, self.phones.sources, self.recipe.data.train, strict=True
        ):
            if aligned and not any(u.audio_path.stem in aligned for u in source.utterances):
                raise InputError(
                    f"{what.alignment} names none of the recordings of {what.manifest}, such as "
                    f"{source.utterances[0].audio_path.stem!r}, but {next(iter(aligned))!r}"
                )

    def _labels(self, draw: Draw, count: int) -> npt.NDArray[np.int64] | None:
        """The phone of each of `count` frames; unknown where recordings are joined or surrounded."""
        if self.phones is None:
            return None
        joined = draw.source.compose is not None or bool(draw.source.surround_s)
        name = "" if joined else draw.source.utterances[draw.indices[0]].audio_path.stem
        shift_s = self.frontend.frame_shift_ms / 1000
        return self.phones.frames(self.sources.index(draw.source), name, count, shift_s, draw.speed)

    def statistics(self, batches: int = 20) -> tuple[list[float], list[float]]:
        """Mean and standard deviation (F,) of the first batches, less padding and, for fbank, silence."""
        frames = torch.cat([self[step].features.flatten(0, 1) for step in range(min(batches, len(self)))])
        frames = frames[(frames != SILENCE).any(dim=1)]  # padding is not in any front end's statistics
        if isinstance(self.frontend, FbankConfig):
            frames = frames[frames[:, : self.frontend.num_mel_bins].mean(dim=1) > 0.0]
        if len(frames) < 2:
            raise InputError("the training recordings hold no speech; check the manifests' audio")
        return frames.mean(dim=0).tolist(), frames.std(dim=0).clamp(min=1e-2).tolist()


@dataclass(frozen=True)
class Parts(Dataset[list[Batch]]):
    """Item `step` is what this process learns from in that step."""

    of: TrainingSet

    def __getitem__(self, step: int) -> list[Batch]:
        return self.of.parts(step)


def _is_natural_log_mel(frontend: TrainingFrontend) -> bool:
    """A channel's response can be added to such features."""
    if isinstance(frontend, LogMelConfig):
        return frontend.log == "natural" and frontend.normalization == "none"
    return isinstance(frontend, FbankConfig)


def evaluation_set(
    recipe: Recipe, tokens: Tokens, frontend: TrainingFrontend, group: Group = ALONE
) -> list[tuple[Tensor, str]]:
    """Features (1, T, F) and text of the group's share of the `dev` utterances, unaltered; strings are drawn
    from the seed."""
    spoken = group.share(_spoken(recipe, tokens, frontend))
    return [(torch.from_numpy(features_of(waveform, frontend))[None], text) for waveform, text in spoken]


def _spoken(recipe: Recipe, tokens: Tokens, frontend: TrainingFrontend) -> Iterator[tuple[FloatArray, str]]:
    """Waveform and text of every `dev` utterance."""
    cache = _cache(recipe)
    rng = np.random.default_rng(recipe.run.seed)
    for source in recipe.data.dev:
        recordings = Recordings(source, Path(recipe.data.root), frontend.sample_rate, tokens, cache)
        for i in range(len(recordings.utterances)):
            chosen = recordings.draw(rng, rng.random()) if source.compose else [i]
            waveform = recordings.join(rng, [recordings.waveform(c) for c in chosen])
            yield waveform, recordings.text(chosen)


def collate(examples: list[Example]) -> Batch:
    """Pad features with digital silence and join the targets, which is what CTC loss reads."""
    features = [torch.from_numpy(e.features) for e in examples]
    waveforms = [torch.from_numpy(e.waveform) for e in examples if e.waveform is not None]
    labels = [torch.from_numpy(e.labels) for e in examples if e.labels is not None]
    return Batch(
        pad_sequence(features, batch_first=True, padding_value=SILENCE),
        torch.tensor([len(f) for f in features]),
        torch.tensor([n for e in examples for n in e.numbers]),
        torch.tensor([len(e.numbers) for e in examples]),
        pad_sequence(waveforms, batch_first=True) if waveforms else torch.zeros(0, 0),
        torch.tensor([len(w) for w in waveforms], dtype=torch.int64),
        pad_sequence(labels, batch_first=True, padding_value=UNKNOWN_LABEL)
        if labels
        else torch.zeros(0, 0, dtype=torch.int64),
    )


def read_waveform(utterance: Utterance, sample_rate: int) -> FloatArray:
    """Read an utterance and resample it. Raises InputError."""
    samples, rate = utterance.read()
    return resample(samples, rate, sample_rate)


def _cache(recipe: Recipe) -> AudioCache | None:
    return AudioCache(Path(recipe.data.cache)) if recipe.data.cache else None


def texts(recipe: Recipe) -> list[str]:
    """All training texts of a recipe."""
    root = Path(recipe.data.root)
    return [u.text for source in recipe.data.train for u in _of_source(source, root)]


def _of_source(source: Source, root: Path, fields: tuple[str, ...] = ()) -> list[Utterance]:
    """The utterances, with the numbers in `fields` as their text where there are any."""
    utterances = _read(root, source.manifest, need_text=not (source.keyword_free or fields))
    kept = [u for place, u in enumerate(utterances) if source.keeps(place)]
    if not kept:
        raise InputError(f"{source.manifest}: too short for the fold {source.fold or source.except_fold!r}")
    if fields:
        return [replace(u, text=_numbers(u, fields, source.manifest)) for u in kept]
    return [replace(u, text="") for u in kept] if source.keyword_free else kept


def _numbers(utterance: Utterance, fields: tuple[str, ...], manifest: str) -> str:
    values = {field: utterance.extra.get(field) for field in fields}
    for field, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise InputError(f"{manifest}: {utterance.name} has {field!r} {value!r}; it must be a number")
    return " ".join(map(repr, values.values()))


def _usable(source: Source, root: Path, tokens: Tokens) -> list[Utterance]:
    utterances = _of_source(source, root, tokens.fields)
    usable = [u for u in utterances if tokens.encode(u.text) is not None]
    if not source.in_vocabulary_only and len(usable) < len(utterances):
        odd = next(u for u in utterances if u not in usable)
        raise InputError(
            f"{source.manifest}: {odd.text[:60]!r} needs a unit outside the vocabulary; "
            "set in_vocabulary_only = true for this source to leave such recordings out"
        )
    if not usable:
        raise InputError(f"{source.manifest}: no recording is within the vocabulary")
    return usable


def _read_sounds(root: Path, manifest: str, sample_rate: int) -> list[FloatArray]:
    if not manifest:
        return []
    return [read_waveform(u, sample_rate) for u in _read(root, manifest, need_text=False)]


def _read(root: Path, manifest: str, need_text: bool = True) -> list[Utterance]:
    path = root / manifest
    if not path.exists():
        raise InputError(f"{path}: no such manifest; say where the corpora are with --set data.root=/path")
    return read_manifest(path, need_text)
