"""A second run does only what changed; what is damaged is made again; what was finished is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_speech.decoder import DecoderOptions
from edge_speech.training.checkpoint import load_model, save_model
from edge_speech_tools import pipeline, reference, stages
from edge_speech_tools.cache import Cache, key_of
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.plan import OptimizeConfig
from edge_speech_tools.quantize import int8_dynamic
from test_optimize import config_of, write_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with reference.single_thread():
        yield


def entry_file(cache: Cache) -> Path:
    (found,) = cache.folder.glob("*/entry.json")
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    """A cache with one entry of one file."""
    made = tmp_path / "a.bin"
    made.write_bytes(b"artifact")
    cache = Cache(tmp_path / "cache")
    cache.put("build", "key", {"n": 1}, [made])
    return cache


def test_an_entry_comes_back(kept: Cache) -> None:
    found = kept.get("build", "key")
    assert found is not None
    assert found.value == {"n": 1}
    assert (found.folder / "a.bin").read_bytes() == b"artifact"
    assert kept.get("build", "another") is None
    assert [path.name for path in kept.folder.iterdir()] == [found.folder.name]


@pytest.mark.parametrize("content", [b"artifacT", b"art", b""])
def test_a_changed_or_truncated_file_is_noticed(kept: Cache, content: bytes) -> None:
    (entry_file(kept).parent / "a.bin").write_bytes(content)
    assert kept.get("build", "key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"value": 2, "files": {}, "sha256": "0"}'])
def test_a_damaged_entry_is_noticed_and_made_again(kept: Cache, text: str) -> None:
    entry_file(kept).write_text(text, encoding="utf-8")
    assert kept.get("build", "key") is None
    assert kept.value("build", "key", lambda: {"n": 3}) == {"n": 3}
    assert kept.value("build", "key", lambda: pytest.fail("made twice")) == {"n": 3}


def test_a_value_changed_by_hand_is_noticed(kept: Cache) -> None:
    path = entry_file(kept)
    path.write_text(path.read_text(encoding="utf-8").replace('"n": 1', '"n": 2'), encoding="utf-8")
    assert kept.get("build", "key") is None


def test_what_the_last_run_did_not_use_is_dropped(kept: Cache, tmp_path: Path) -> None:
    (kept.folder / ".new-killed").mkdir()
    (kept.folder / "notes").mkdir()
    later = Cache(kept.folder)
    later.put("parity", "other", 1.0)
    later.drop_unused()
    assert sorted(path.name.split(".")[0] for path in kept.folder.iterdir()) == ["notes", "parity"]


def test_keys_tell_things_apart() -> None:
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    assert len({key_of("a"), key_of("a", None), key_of(["a"]), key_of(Path("a"), 1), key_of(1, "a")}) == 5


# -- whole runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path, digits: Path) -> OptimizeConfig:
    """onnxruntime fp32, dynamic int8 and weight-only int8 and int4 of a small model."""
    return config_of(
        write_model(tmp_path / "model.pt"),
        tmp_path / "bundle",
        "linux-x86_64",
        eval_manifest=digits / "clips.jsonl",
        accuracy_budget=1000.0,
        cache=tmp_path / ".bundle.cache",
    )


class Counted:
    """Which of the slow steps really ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        slow = ["measure_parity", "measure_quality", "measure_latency", "stream_rows", "measure_reference"]
        for module, name in [(streaming_onnx, "run"), (int8_dynamic, "run"), *((stages, n) for n in slow)]:
            monkeypatch.setattr(module, name, self._counting(module, name))

    def _counting(self, module: Any, name: str) -> Any:
        original, shown = getattr(module, name), f"{module.__name__.rpartition('.')[2]}.{name}"

        def run(*args: Any) -> Any:
            self.ran.append(shown)
            return original(*args)

        return run

    def take(self) -> list[str]:
        """What ran since the last call."""
        ran, self.ran = self.ran, []
        return ran


def rerun(job: OptimizeConfig, **changes: Any) -> dict[str, Any]:
    return pipeline.optimize(replace(job, force=True, **changes)).report


def test_a_second_run_makes_nothing_and_says_the_same(
    job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    first = rerun(job)
    assert len(counted.take()) == 2 + 1 + 4 + 5 + 1 + 4  # passes, reference, parity, WER, latency, drift
    second = rerun(job)
    assert counted.take() == []
    for key in ("artifacts", "quality", "performance", "decision", "drift"):
        assert second[key] == first[key]


def test_other_settings_make_a_pass_again_but_measure_the_same_file_once(
    job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    rerun(job)
    counted.take()
    monkeypatch.setattr(int8_dynamic, "Config", lambda: int8_dynamic_config(per_channel=False))
    rerun(job)
    assert counted.take() == ["int8_dynamic.run"]


int8_dynamic_config = int8_dynamic.Config


def test_another_decoder_is_judged_and_timed_anew(
    job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    rerun(job)
    counted.take()
    rerun(job, decoder=DecoderOptions(beam_size=4))
    assert counted.take() == ["stages.measure_quality"] * 5 + ["stages.measure_latency"]


def test_another_checkpoint_makes_everything_again(
    job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    rerun(job)
    everything = counted.take()
    loaded = load_model(job.model)
    with torch.no_grad():
        loaded.model.output.weight.mul_(1.5)  # type: ignore[union-attr, operator]
    save_model(job.model, loaded)
    rerun(job)
    assert counted.take() == everything


def test_what_was_finished_before_an_interruption_is_kept(
    job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    with monkeypatch.context() as context:
        context.setattr(stages, "measure_latency", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rerun(job)
    assert not job.output.exists()
    counted.take()
    rerun(job)
    assert counted.take() == ["stages.measure_latency", *4 * ["stages.stream_rows"]]


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_truncated_artifact_is_made_again(job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    rerun(job)
    counted.take()
    assert job.cache is not None
    (graph,) = job.cache.glob(f"build-onnx.*/{streaming_onnx.FILE_NAME}")
    graph.write_bytes(graph.read_bytes()[:1000])
    rerun(job)
    assert counted.take()[0] == "onnx.run"


def test_without_a_cache_nothing_is_left(job: OptimizeConfig) -> None:
    rerun(job, cache=None, eval_manifest=None)
    assert {path.name for path in job.output.parent.iterdir()} == {"bundle", "model.pt"}
