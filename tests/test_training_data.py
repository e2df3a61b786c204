"""Where training data comes from: folds of a manifest, decoded recordings kept on disk."""

from __future__ import annotations

import errno
import json
import os
import resource
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.manifest import Utterance
from edge_speech.training.audio_cache import AudioCache
from edge_speech.training.data import Batch, Recordings, TrainingSet, texts
from edge_speech.training.recipe import Data, Optimizer, Recipe, Source
from edge_speech.training.tokens import Tokens
from test_training import DIGITS


def write_manifest(folder: Path, count: int) -> None:
    """Texts are "a", "b", …; there is no audio."""
    rows = [{"audio_filepath": "none.wav", "duration": 1, "text": chr(ord("a") + i)} for i in range(count)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_fold_and_the_others_part_a_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, 8)
    tokens = Tokens.build("characters", ["abcdefgh"], ())
    held, rest = (
        "".join(u.text for u in Recordings(source, tmp_path, 8000, tokens).utterances)
        for source in (Source("m.jsonl", fold="1/3"), Source("m.jsonl", except_fold="1/3"))
    )
    assert (held, rest) == ("beh", "acdfg")
    learnt = texts(Recipe(Data((Source("m.jsonl", except_fold="1/3"),), root=str(tmp_path))))
    assert "".join(learnt) == rest  # units come from what is trained on, not from what is held out


@pytest.mark.parametrize("fold", ["1/1", "3/3", "0/0", "-1/3", "1/3/4", "1", "one/two", " 1/3", "0/1"])
@pytest.mark.parametrize("key", ["fold", "except_fold"])
def test_bad_folds_are_named(fold: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"m\.jsonl has the fold '{fold}'; allowed: K/N"):
        Source("m.jsonl", **{key: fold})


def test_fold_and_except_fold_exclude_each_other() -> None:
    with pytest.raises(InputError, match="takes one of them"):
        Source("m.jsonl", fold="0/2", except_fold="0/2")


def test_a_fold_of_a_short_manifest_is_no_empty_set(tmp_path: Path) -> None:
    write_manifest(tmp_path, 2)
    with pytest.raises(InputError, match="too short for the fold '5/10'"):
        texts(Recipe(Data((Source("m.jsonl", fold="5/10"),), root=str(tmp_path))))


@pytest.fixture
def cached(digits: Path, tmp_path: Path) -> Recipe:
    """The shipped clips with a cache in the folder `cache`."""
    data = Data((Source("clips.jsonl"),), str(digits), vocabulary=DIGITS, cache=str(tmp_path / "cache"))
    return Recipe(
        data,
        frontend={"type": "fbank", "sample_rate": 16000},
        optimizer=Optimizer(steps=4, batch_size=3),
    )


def batches(recipe: Recipe, workers: int = 0) -> list[Batch]:
    frontend = frontend_from_dict(recipe.frontend)
    training_set = TrainingSet(recipe, Tokens.build("words", [], DIGITS), frontend)
    return list(DataLoader(training_set, sampler=range(4), batch_size=None, num_workers=workers))


def entries(recipe: Recipe) -> list[Path]:
    return sorted(Path(recipe.data.cache).rglob("*.npy"))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(*(torch.as_tensor(getattr(batch, f.name)) for batch in (a, b)))
        for a, b in zip(one, other, strict=True)
        for f in fields(Batch)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_no_bit(cached: Recipe, workers: int) -> None:
    plain = batches(replace(cached, data=replace(cached.data, cache="")))
    assert same(batches(cached, workers), plain)
    made = entries(cached)
    assert 0 < len(made) <= 5
    times = [path.stat().st_mtime_ns for path in made]
    assert same(batches(cached, workers), plain)
    assert [path.stat().st_mtime_ns for path in entries(cached)] == times
    assert not list(Path(cached.data.cache).rglob("*.tmp"))


def test_a_warm_cache_reads_no_recording(cached: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batches(cached)
    monkeypatch.setattr(Utterance, "read", lambda self: pytest.fail("decoded again"))
    assert same(batches(cached), plain)


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "kind", "rest"])
def test_damaged_entries_are_made_anew(cached: Recipe, damage: str) -> None:
    plain = batches(cached)
    whole = {path: path.read_bytes() for path in entries(cached)}
    for path, content in whole.items():
        middle = len(content) // 2
        path.write_bytes(
            {
                "empty": b"",
                "cut": content[:middle],
                "bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "kind": b"not an array",
                "rest": content[:-4],
            }[damage]
        )
    assert same(batches(cached), plain)
    assert {path: path.read_bytes() for path in entries(cached)} == whole


def test_a_changed_recording_is_read_again(tmp_path: Path) -> None:
    cache, utterance = AudioCache(tmp_path / "cache"), Utterance(tmp_path / "a.wav", "")
    for level in (0.25, 0.5):
        soundfile.write(tmp_path / "a.wav", np.full(800, level, np.float32), 8000)
        os.utime(tmp_path / "a.wav", ns=(0, round(1e9 * level)))
        assert cache.read(utterance, 8000).max() == pytest.approx(level, abs=1e-4)
    part = cache.read(replace(utterance, offset_s=0.05, duration_s=0.02), 8000)
    assert len(part) == 160
    assert len(cache.read(utterance, 16000)) == 1600
    with pytest.raises(InputError, match=r"b\.wav"):
        cache.read(Utterance(tmp_path / "b.wav", ""), 8000)


def test_a_full_disk_does_no_harm(cached: Recipe, capfd: pytest.CaptureFixture[str]) -> None:
    plain = batches(replace(cached, data=replace(cached.data, cache="")))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        found = batches(cached)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(found, plain)
    assert capfd.readouterr().err.count("takes no more (") == 1
    assert not [path for path in Path(cached.data.cache).rglob("*") if path.is_file()]


def test_workers_tell_of_a_full_disk_once(
    cached: Recipe, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    batches(cached, workers=2)
    assert capfd.readouterr().err.count("takes no more (No space left on device)") == 1


def test_a_cache_that_cannot_be_made_is_named(cached: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recipe = replace(cached, data=replace(cached.data, cache=str(tmp_path / "file" / "cache")))
    with pytest.raises(InputError, match=r"data\.cache is .*file/cache, which cannot be made"):
        batches(recipe)
