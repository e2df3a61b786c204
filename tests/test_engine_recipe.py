"""engine.toml: what is written is read again, and nothing odd is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_speech import power_mode
from edge_speech.engine_recipe import EngineRecipe, Profile, as_toml, profiles_of, read_recipe, version_of
from edge_speech.errors import InputError
from tiny import SPEC

RECIPE = EngineRecipe("a.onnx", "0" * 64, "fp16", profiles_of(SPEC), "10.3", dla_core=1, sparse_weights=True)


def written(folder: Path, text: str) -> Path:
    path = folder / "a.engine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["features", 'a "quoted" name', "größe\\n"])
def test_it_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, profiles=(Profile(name, (1, 2), (1, 3), (1, 4)), *RECIPE.profiles[1:]))
    assert read_recipe(written(tmp_path, as_toml(recipe))) == recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("typed = true", "typed = true\nturbo = 1"), "unknown key 'turbo'"),
        (("typed = true", 'typed = "yes"'), "'typed' must be true or false"),
        (("typed = true", ""), "'typed' must be true or false, got nothing"),
        (("version = 1", "version = 2"), "'version' must be 1"),
        (("edge-speech-engine", "other"), "'format' must be"),
        (('"fp16"', '"int4"'), "fp16, int8-static"),
        (('"10.3"', '"ten"'), "a version such as"),
        (('"timing"', '"../timing"'), "letters, digits"),
        (("dla_core = 1", "dla_core = 99"), "from -1 to 15"),
        (("workspace_mib = 256", "workspace_mib = 0"), "'workspace_mib'"),
        (("max = [1]", "max = [0]"), "'max'"),
        (("min = [1]", "min = [2]"), "none above the next"),
        (("max = [1]", "max = [1, 1]"), "of one rank"),
        (("[[profiles]]", "[[profile]]"), "unknown key 'profile'"),
        (("= 1", "== 1"), "not TOML"),
    ],
)
def test_what_is_odd_is_one_line(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, as_toml(RECIPE).replace(*change))
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "version"), [("10.3.0.30", (10, 3, 0)), ("8.6", (8, 6)), ("11", (11,)), ("", ()), ("x1", ())]
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("NV Power Mode: MAXN\n0\n", ("MAXN", "0")),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 15W\n2\n", ("15W", "2")),
        ("something else", None),
    ],
)
def test_the_power_mode_that_nvpmodel_says(said: str, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = type("Done", (), {"stdout": said})
    monkeypatch.setattr(power_mode.subprocess, "run", lambda *_, **__: answer)
    assert power_mode.power_mode() == found


def test_a_machine_without_nvpmodel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert power_mode.require_power_mode(None) is None
    with pytest.raises(InputError, match="no nvpmodel answers here"):
        power_mode.require_power_mode("15W")
