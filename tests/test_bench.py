"""Bench: its keys, its arithmetic against a clock of its own, its page."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edge_speech.bench import percentiles, time_stream
from edge_speech.features import frontend_from_dict
from edge_speech.recognizer import Recognizer
from test_errors import run
from tiny import FRONTEND, SPEC, TOKENS, TinyEncoder, TinyStream, speech_like, write_bundle

KEYS = [
    "backend",
    "precision",
    "threads",
    "audio_s",
    "rtf",
    "chunk_ms",
    "chunk_latency_ms",
    "first_partial_ms",
]
KEYS += ["final_latency_ms", "deadline_misses", "peak_rss_mib", "load_ms", "artifact_bytes"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_bundle(folder / "bundle")
    return folder


def test_keys_and_page(work: Path) -> None:
    done = run(work, "bench", "bundle", "--backend", "all", "--json", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert list(result) == KEYS
    assert list(result["chunk_latency_ms"]) == ["p50", "p95", "p99", "max"]
    assert result["audio_s"] >= 20  # the golden two seconds, repeated
    assert result["chunk_ms"] == 80
    assert 0 < result["rtf"] < 1
    assert 10 < result["peak_rss_mib"] < 2000
    assert result["load_ms"] > 0
    assert result["artifact_bytes"] == (work / "bundle" / "model.onnx").stat().st_size
    check_page((work / "page.html").read_text())


def check_page(page: str) -> None:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(page)
    assert tags.count("svg") == 1
    assert tags.count("rect") >= 2
    assert "script" not in tags
    assert "http" not in page


def test_people_get_a_table(work: Path) -> None:
    lines = run(work, "bench", "bundle", "--quiet").stdout.decode().splitlines()
    assert lines[0].split()[:3] == ["backend", "precision", "threads"]
    assert len(lines) == 2
    assert lines[1].startswith("onnxruntime")


class SlowEncoder(TinyEncoder):
    """Every step takes 3 ms, the tenth 120 ms: one deadline of 80 ms is missed."""

    def open(self, features, log_probs):
        stream = super().open(features, log_probs)

        def step() -> None:
            TinyStream.step(stream)
            time.sleep(0.12 if stream.steps == 15 else 0.003)

        stream.step = step
        return stream


@pytest.mark.parametrize("realtime", [False, True])
def test_times_of_a_known_engine(realtime: bool) -> None:
    recognizer = Recognizer(SlowEncoder(), frontend_from_dict(FRONTEND), TOKENS)
    waveform = speech_like(2)
    start = time.perf_counter()
    times = time_stream(recognizer, waveform, 16000, realtime)
    elapsed = time.perf_counter() - start
    assert times.audio_s == 2.0
    assert times.chunk_ms == 80
    assert len(times.latencies_ms) == 2000 // 80 - 1  # the first chunk's lookahead comes with the second
    assert min(times.latencies_ms) >= 3
    assert max(times.latencies_ms) >= 120
    # On a busy machine every step may take longer, so nothing is said of what it takes at the most.
    late = sum(ms > 80 for ms in times.latencies_ms)
    assert times.deadline_misses >= late >= 1  # in real time a late chunk can make the next one late
    assert times.final_latency_ms >= 3
    assert times.first_partial_ms is not None
    assert times.first_partial_ms > 80
    assert times.rtf >= (24 * 3 + 120) / 2000
    if realtime:
        assert elapsed >= 2.0


def test_percentiles_are_numpys() -> None:
    values = tuple(np.random.default_rng(0).exponential(3, 500))
    expected = {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}
    assert percentiles(values) == expected | {"max": round(max(values), 3)}
    assert SPEC.chunk_frames == 8
