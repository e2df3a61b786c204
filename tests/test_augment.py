"""Rooms, codecs and the telephone, each against another implementation or a property it must have."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import FbankConfig, resample
from edge_speech.training import codec
from edge_speech.training.augment import Chain
from edge_speech.training.data import TrainingSet
from edge_speech.training.recipe import Augment, Data, Recipe, Source
from edge_speech.training.reverb import convolve, draw_response, reverberate
from edge_speech.training.tokens import Tokens
from oracles import CLIPS, read_clip
from test_training import DIGITS

QUIET = Augment(noise_probability=0.0, gain_db=0.0)


def clip(sample_rate: int = 16000) -> FloatArray:
    samples, rate = read_clip(CLIPS[0])
    return resample(samples, rate, sample_rate)


def level_db(waveform: FloatArray) -> float:
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64))))


def snr_db(clean: FloatArray, heard: FloatArray) -> float:
    return level_db(clean) - level_db(clean - heard)


def lag_of(heard: FloatArray, clean: FloatArray) -> int:
    """Samples by which `heard` is late."""
    return int(scipy.signal.correlate(heard, clean).argmax()) - (len(clean) - 1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 3), (1000, 4000), (16001, 799)])
def test_convolution_is_scipys(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    one, other = (rng.standard_normal(count, dtype=np.float32) for count in (n, m))
    expected = scipy.signal.fftconvolve(one.astype(np.float64), other.astype(np.float64))
    assert convolve(one, other) == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())


def test_a_room_keeps_length_level_and_timing() -> None:
    dry = clip()
    response = draw_response(np.random.default_rng(0), 16000, (0.5, 0.5), (6.0, 6.0))
    late = np.concatenate(
        (np.zeros(400, np.float32), -0.1 * response)
    )  # 25 ms from loudspeaker to microphone
    for room in (response, late):
        wet = reverberate(dry, room)
        assert len(wet) == len(dry)
        assert level_db(wet) == pytest.approx(level_db(dry), abs=1e-3)
        assert abs(lag_of(np.abs(wet), np.abs(dry))) <= 2
        assert snr_db(dry, wet) < 15
    assert np.allclose(reverberate(dry, late), -reverberate(dry, response), atol=1e-5)


def test_one_impulse_or_none_is_no_room() -> None:
    dry = clip()
    impulse = np.zeros(100, np.float32)
    assert np.array_equal(reverberate(dry, impulse), dry)
    impulse[60] = 0.25
    assert np.allclose(reverberate(dry, impulse), dry, atol=1e-6)


@pytest.mark.parametrize("rt60_s", [0.2, 0.5, 0.8])
def test_a_made_up_room_decays_as_asked(rt60_s: float) -> None:
    """Schroeder's backward integration: the slope of the energy that is left (ISO 3382, T30)."""
    response = draw_response(np.random.default_rng(1), 16000, (rt60_s, rt60_s), (3.0, 3.0))
    tail = response[1:].astype(np.float64)
    left_db = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
    used = (left_db < -5) & (left_db > -35)
    slope_db_per_s = np.polyfit(np.flatnonzero(used) / 16000, left_db[used], 1)[0]
    assert -60 / slope_db_per_s == pytest.approx(rt60_s, rel=0.1)
    assert 10 * np.log10(response[0] ** 2 / np.sum(tail**2)) == pytest.approx(3.0, abs=0.01)
    assert np.abs(response).argmax() == 0


def test_what_a_room_is_drawn_from() -> None:
    lengths = [
        len(draw_response(np.random.default_rng(i), 8000, (0.2, 0.8), (0.0, 15.0))) for i in range(200)
    ]
    assert 0.2 * 8000 - 2 <= min(lengths) < 0.25 * 8000
    assert 0.75 * 8000 < max(lengths) <= 0.8 * 8000


@pytest.mark.parametrize(("name", "subtype"), [("mu-law", "ULAW"), ("a-law", "ALAW")])
def test_g711_is_libsndfiles_on_every_sample(name: str, subtype: str) -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    form: dict[str, Any] = {"format": "RAW", "subtype": subtype}
    stored = io.BytesIO()
    soundfile.write(stored, every, 8000, **form)
    stored.seek(0)
    expected = soundfile.read(stored, dtype="int16", samplerate=8000, channels=1, **form)[0]
    heard = codec.code(np.random.default_rng(0), every / np.float32(32768), 8000, name)
    assert np.array_equal(heard * 32768, expected)


def test_g711_clips_what_is_too_loud() -> None:
    loud = np.array([-3.0, 2.0], np.float32)
    law = codec.code(np.random.default_rng(0), loud, 8000, "mu-law")
    assert law * 32768 == pytest.approx([-32124, 32124])  # the largest value of G.711's table 2a, 16-bit


@pytest.mark.parametrize(("name", "least_db", "most_db"), [("vorbis", 12, 40), ("opus", 0, 30)])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_lossy_codecs_lose_but_keep_length_and_timing(
    name: str, least_db: float, most_db: float, sample_rate: int
) -> None:
    clean = clip(sample_rate)[:-37]  # no whole number of codec frames
    heard = codec.code(np.random.default_rng(0), clean, sample_rate, name)
    assert (len(heard), heard.dtype) == (len(clean), np.float32)
    assert lag_of(heard, clean) == 0
    assert least_db < snr_db(clean, heard) < most_db
    assert np.array_equal(heard, codec.code(np.random.default_rng(0), clean, sample_rate, name))


def test_lossy_codecs_take_minutes_and_one_sample() -> None:
    for clean in (np.tile(clip(), 60), clip()[:1]):
        assert len(codec.code(np.random.default_rng(0), clean, 16000, "vorbis")) == len(clean)


def test_the_telephones_filter_is_scipys() -> None:
    taps = codec._band_pass(16000)
    expected = scipy.signal.firwin(len(taps), codec.TELEPHONE_BAND_HZ, pass_zero=False, scale=False, fs=16000)
    assert taps == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 48000])
def test_a_telephone_transmits_its_band_in_time(sample_rate: int) -> None:
    rng = np.random.default_rng(0)
    clean = 0.1 * rng.standard_normal(2 * sample_rate, dtype=np.float32)
    heard = codec.telephone(clean, sample_rate)
    assert len(heard) == len(clean)
    assert lag_of(heard, clean) == 0
    frequencies, before = scipy.signal.welch(clean, sample_rate, nperseg=sample_rate // 40)
    change_db = 10 * np.log10(scipy.signal.welch(heard, sample_rate, nperseg=sample_rate // 40)[1] / before)
    assert np.abs(change_db[(frequencies > 450) & (frequencies < 3250)]).max() < 1.5
    assert change_db[(frequencies > 0) & (frequencies < 150)].max() < -15
    assert change_db[frequencies > 3650].max(initial=-99.0) < -15


EVERYTHING = Augment(reverb_probability=1.0, noise_probability=1.0, codec_probability=1.0)
EVERYTHING = replace(EVERYTHING, telephone_probability=1.0, codecs=("mu-law", "a-law", "vorbis", "opus"))


@pytest.mark.parametrize("rirs", [[], [np.array([0.0, 1.0, 0.5, 0.25], np.float32)]])
def test_the_chain_depends_on_its_generator_alone(rirs: list[FloatArray]) -> None:
    chain, clean = Chain(EVERYTHING, 16000, rirs=rirs), clip()
    first = chain(np.random.default_rng(5), clean)
    assert np.array_equal(first, chain(np.random.default_rng(5), clean))
    assert not np.array_equal(first, chain(np.random.default_rng(6), clean))
    assert (first.shape, first.dtype) == (clean.shape, np.float32)
    assert np.array_equal(clean, clip())  # what is cached must not change


@pytest.mark.parametrize("name", ["reverb", "codec", "telephone"])
def test_each_is_off_until_asked_for_and_then_as_often(name: str) -> None:
    clean = clip(8000)[:2000]
    assert np.array_equal(Chain(QUIET, 8000)(np.random.default_rng(0), clean), clean)
    chain = Chain(replace(QUIET, **{f"{name}_probability": 0.3}), 8000)  # type: ignore[arg-type]
    changed = [not np.array_equal(chain(np.random.default_rng(i), clean), clean) for i in range(300)]
    assert 60 <= sum(changed) <= 120  # five deviations of a binomial count are 40


def test_the_order_is_that_of_sound() -> None:
    """Noise is added in the room's quiet, the codec hears both, the gain comes last."""
    how = replace(EVERYTHING, codecs=("mu-law",), telephone_probability=0.0, gain_db=0.0)
    heard = Chain(how, 8000)(np.random.default_rng(0), clip(8000))
    levels = np.unique(codec.code(np.random.default_rng(0), heard, 8000, "mu-law"))
    assert np.isin(heard, levels).all()  # nothing but gain after the codec
    louder = Chain(replace(how, gain_db=6.0), 8000)(np.random.default_rng(0), clip(8000))
    scale = louder[np.abs(louder).argmax()] / heard[np.abs(louder).argmax()]
    assert np.allclose(louder, heard * scale, atol=1e-6)


def test_recorded_rooms_come_from_their_manifest(tmp_path: Path, digits: Path) -> None:
    soundfile.write(tmp_path / "room.wav", np.array([0.0, 0.5, 0.0, 0.25]), 8000)
    (tmp_path / "rirs.jsonl").write_text('{"audio_filepath": "room.wav"}\n')
    data = Data((Source("clips.jsonl"),), str(digits), vocabulary=DIGITS, rirs=str(tmp_path / "rirs.jsonl"))
    frontend = FbankConfig(sample_rate=8000, num_mel_bins=23)
    recipe = Recipe(data, augment=replace(QUIET, reverb_probability=1.0))
    chain = TrainingSet(recipe, Tokens.build("words", [], DIGITS), frontend).distort
    impulse = np.zeros(10, np.float32)
    impulse[2] = 0.5
    heard = chain(np.random.default_rng(0), impulse)
    assert heard[[2, 4]] == pytest.approx(0.5 * np.array([1, 0.5]) / np.sqrt(1.25), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reverb_probability": 1.5}, r"augment\.reverb_probability is 1\.5; allowed: from 0 to 1"),
        ({"rt60_s": (0.5, 0.2)}, "rt60_s .* the lower first"),
        ({"rt60_s": (0.0, 0.2)}, "rt60_s .* from 0.01 to 10 seconds"),
        ({"noise_snr_db": (5.0,)}, "noise_snr_db .* two numbers"),
        ({"codecs": ()}, "one codec or more"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augment(**settings)


def test_rates_that_a_line_does_not_take() -> None:
    with pytest.raises(InputError, match=r"opus, which takes 8000, 12000, .* not the front end's 22050"):
        Chain(replace(QUIET, codec_probability=0.1, codecs=("opus",)), 22050)
    with pytest.raises(InputError, match="needs a front end of 8000 Hz or more, not 4000"):
        Chain(replace(QUIET, telephone_probability=0.1), 4000)


def test_every_setting_is_in_the_document_and_every_picture_shown() -> None:
    document = (Path(__file__).parents[1] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    assert [f.name for f in fields(Augment) if f"`{f.name}`" not in document] == []
    pictures = (Path(__file__).parents[1] / "docs" / "augmentation").iterdir()
    assert [p.name for p in pictures if f"(augmentation/{p.name})" not in document] == []
