"""Where training data comes from: folds of a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_speech.errors import InputError
from edge_speech.training.data import Recordings, texts
from edge_speech.training.recipe import Data, Recipe, Source
from edge_speech.training.tokens import Tokens


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
