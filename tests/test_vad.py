"""The energy VAD: on real speech in noise, at its thresholds, and however the waveform is cut."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from edge_speech.errors import InputError
from edge_speech.features import FloatArray
from edge_speech.vad import EnergyVad, VadConfig


def run(samples: FloatArray, cuts: list[int] | None = None, **options: Any) -> Any:
    """Decisions (T,) of a whole waveform, cut at the given sample numbers and read after every piece."""
    vad = EnergyVad(VadConfig(**options))
    decisions = []
    for piece in np.split(samples, cuts or []):
        vad.accept_waveform(piece, vad.config.sample_rate)
        decisions.append(vad.read())
    return np.concatenate(decisions)


def noise(seconds: float, level_db: float, sample_rate: int = 16000) -> FloatArray:
    size = round(seconds * sample_rate)
    return np.random.default_rng(0).normal(0, 10 ** (level_db / 20), size).astype(np.float32)


def by_definition(samples: FloatArray, config: VadConfig) -> list[bool]:
    """The rule of vad.h over whole frames."""
    frame = int(config.sample_rate * config.frame_ms / 1000 + 1e-6)
    power = np.square(samples[: len(samples) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(1)
    floor, speech, contrary, decisions = -50.0, False, 0, []
    for level in np.maximum(10 * np.log10(np.maximum(power, 1e-300)), -100.0):
        floor = min(level, floor + config.floor_rise_db_per_s * config.frame_ms / 1000)
        threshold = max(floor + (config.offset_db if speech else config.onset_db), config.least_db)
        contrary = 0 if (level > threshold) == speech else contrary + 1
        if contrary and contrary * config.frame_ms >= (
            config.hangover_ms if speech else config.min_speech_ms
        ):
            speech, contrary = not speech, 0
        decisions.append(speech)
    return decisions


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
def test_finds_speech_between_stretches_of_noise(clip: Path) -> None:
    """Of frames within 25 dB of the clip's loudest at least nine in ten are found; far from it, none."""
    samples, rate = oracles.read_clip(clip)
    samples = samples * np.float32(0.5 / np.abs(samples).max())
    waveform = noise(1.0 + len(samples) / rate + 1.0, -65.0, rate)
    waveform[rate : rate + len(samples)] += samples
    found = run(waveform, sample_rate=rate)
    frames = samples[: len(samples) // (rate // 100) * (rate // 100)].reshape(-1, rate // 100)
    level = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    assert found[100 : 100 + len(frames)][level > level.max() - 25].mean() > 0.9
    assert not found[:95].any()
    assert not found[100 + len(frames) + 25 :].any()


def test_steady_noise_is_not_speech_for_long() -> None:
    found = run(noise(10.0, -30.0))
    assert not found[600:].any()


def test_short_sounds_are_not_speech_and_short_gaps_do_not_end_it() -> None:
    tone = np.full(16000, 0.1, np.float32)
    quiet = np.zeros(16000, np.float32)
    assert not run(np.concatenate([quiet, tone[:480], quiet])).any()
    found = run(np.concatenate([quiet, tone, quiet[:1600], tone, quiet]))
    assert found.astype(int).tolist() == [0] * 104 + [1] * (210 - 4 + 19) + [0] * (100 - 19)


CONFIGS = [
    {},
    {"onset_db": 20.0, "offset_db": 3.0, "hangover_ms": 35.0},
    {"frame_ms": 7.3, "min_speech_ms": 0.0, "hangover_ms": 0.0, "floor_rise_db_per_s": 50.0},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
@pytest.mark.parametrize("clip", oracles.CLIPS[:6], ids=lambda clip: clip.stem)
def test_is_its_definition(clip: Path, options: dict[str, Any]) -> None:
    samples, _ = oracles.read_clip(clip)
    assert run(samples, **options).tolist() == by_definition(samples, VadConfig(**options))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 20000), cuts=st.lists(st.integers(0, 20000), max_size=12))
def test_any_chunking_is_the_same(n: int, cuts: list[int]) -> None:
    samples = oracles.read_clip(oracles.CLIPS[0])[0][:n]
    assert np.array_equal(run(samples, sorted(cuts)), run(samples))


def test_reset_forgets() -> None:
    vad, samples = EnergyVad(), oracles.read_clip(oracles.CLIPS[0])[0]
    runs = []
    for _ in range(2):
        vad.accept_waveform(samples, 16000)
        runs.append(vad.read())
        vad.reset()
    assert np.array_equal(runs[0], runs[1])


@pytest.mark.parametrize("name", asdict(VadConfig()))
@pytest.mark.parametrize("value", [-200.0, 1e6, float("nan"), "loud"])
def test_bad_configurations_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        EnergyVad(VadConfig(**{name: value}))


@pytest.mark.parametrize(
    "samples", [np.array([np.nan], np.float32), np.zeros((2, 2), np.float32), np.zeros(2, int)]
)
def test_bad_samples_are_refused(samples: Any) -> None:
    with pytest.raises(InputError, match="allowed"):
        EnergyVad().accept_waveform(samples, 16000)
    with pytest.raises(InputError, match="8000"):
        EnergyVad().accept_waveform(np.zeros(2, np.float32), 8000)
