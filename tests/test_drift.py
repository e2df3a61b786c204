"""Drift: the multi-chunk reference is the chunked run, and growth is told from noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from edge_speech.encoder import FloatArray
from edge_speech.features import FbankConfig
from edge_speech.training import models
from edge_speech_tools import drift, reference
from edge_speech_tools.recordings import from_manifest, synthetic

ROWS, OUTPUTS, ROW_S = 15000, 8, 0.04  # ten minutes


def stream(growth: float, noise: float = 0.01) -> tuple[FloatArray, FloatArray]:
    """Reference log_probs (N, 5), and the same with an error that ends `1 + growth` times as large."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (ROWS, 5)).astype(np.float32))
    error = rng.normal(0, noise, (ROWS, 5)) * np.linspace(1, 1 + growth, ROWS)[:, None]
    other = torch.log_softmax(logits + torch.from_numpy(error.astype(np.float32)), dim=-1)
    return torch.log_softmax(logits, dim=-1).numpy(), other.numpy()


def test_a_steady_error_is_no_drift() -> None:
    found = drift.diverge(*stream(0.0), OUTPUTS, ROW_S)
    assert found.warning is None
    assert found.seconds == 600
    assert found.chunks == 1875
    assert len(found.points) == 60
    assert found.points[0]["at_s"] == pytest.approx(5, abs=0.4)
    low, high = found.slope_ci95
    assert low < 0 < high
    assert found.first == pytest.approx(found.last, rel=0.05)


def test_a_growing_error_is_told() -> None:
    found = drift.diverge(*stream(3.0), OUTPUTS, ROW_S)
    assert found.slope_ci95[0] > 0
    assert found.warning is not None
    assert "over twice" in found.warning


def test_rounding_may_grow_and_numbers_must_be_finite() -> None:
    assert drift.diverge(*stream(3.0, noise=1e-6), OUTPUTS, ROW_S).warning is None
    want, got = stream(0.0)
    got[-1] = np.nan
    assert "finite" in str(drift.diverge(want, got, OUTPUTS, ROW_S).warning)


def test_divergence_is_kullback_and_leiblers() -> None:
    want, got = stream(0.0, noise=0.5)
    found = drift.diverge(want[:16], got[:16], OUTPUTS, ROW_S)
    kl = [stats.entropy(np.exp(p), np.exp(q)) for p, q in zip(want[:16], got[:16], strict=True)]
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-4)
    assert found.mean_abs == pytest.approx(np.abs(want[:16] - got[:16]).mean(), rel=1e-5)


@pytest.mark.parametrize("count", [4, 10, 60])
def test_the_slope_is_scipys(count: int) -> None:
    rng = np.random.default_rng(count)
    x, y = np.arange(count, dtype=float), rng.normal(0, 1, count) + 0.1 * np.arange(count)
    slope, (low, high) = drift.regression(x, y)
    theirs = stats.linregress(x, y)
    reach = stats.t.ppf(0.975, count - 2) * theirs.stderr
    assert slope == pytest.approx(theirs.slope)
    assert (low, high) == pytest.approx((slope - reach, slope + reach), rel=0.02)


@pytest.mark.parametrize("name", sorted(set(models.available()) - {"wav2vec2"}))
@pytest.mark.parametrize("frames", [1, 31, 3000])
def test_many_chunks_at_a_time_are_the_chunked_run(name: str, frames: int) -> None:
    torch.manual_seed(0)
    model = models.build(name, {"vocab_size": 11}).eval()
    spec = model.spec  # type: ignore[union-attr]
    features = np.random.default_rng(0).normal(0, 2, (frames, 80)).astype(np.float32)
    with reference.single_thread():
        chunked = drift.stream_rows(reference.TorchEncoder(model, spec), features, spec)  # type: ignore[arg-type]
        spans = reference.rows(model, spec, features)  # type: ignore[arg-type]
    assert len(spans) == -(-frames // 4)
    np.testing.assert_allclose(spans, chunked, atol=1e-4)


def test_the_stream_joins_recordings_up_to_ten_minutes(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FbankConfig()
    assert len(drift.long_stream(synthetic(16000).recordings, config)) == pytest.approx(1200, abs=5)
    monkeypatch.setattr(drift, "LONGEST_S", 5.0)
    assert len(drift.long_stream(synthetic(16000).recordings, config)) == pytest.approx(500, abs=5)
    assert len(drift.long_stream(from_manifest(digits / "clips.jsonl").recordings, config)) > 100
