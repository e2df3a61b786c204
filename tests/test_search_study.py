"""The trials of a search: none lost, none repeated, however often and by however many they are run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.progress import Progress
from edge_speech_tools.search import study
from edge_speech_tools.search.finalists import pareto, promising
from edge_speech_tools.search.space import ModelSpace, Settings, Space, baselines, in_words, settings_of
from edge_speech_tools.search.study import Trial
from edge_speech_tools.search.trial import Figures

QUIET = Progress(quiet=True)
GROUPS = ("layers.*.attention", "output")
MODEL = ModelSpace("a.pt", (16, 8, 32), (0.0, 0.2, 0.4), {"num_layers": (4, 2)}, GROUPS)
PASSES = {"fp32": "onnx", "int8-static": "int8_static", "int8-dynamic": "int8_dynamic"}
SPACE = Space((MODEL, ModelSpace("b.pt", (20,), (0.0,), {}, ())), "onnxruntime", PASSES)


def figures(settings: Settings) -> Figures:
    """A made-up measurement that depends on every setting."""
    small = settings.pruning_ratio + (settings.subnetwork.get("num_layers") == 2)
    int8 = settings.precision.startswith("int8") - 0.2 * len(settings.fp32)
    rtf = (4 - small - int8) / settings.chunk_frames
    return Figures(10 + 5 * small + int8, 3, rtf, 1.0, 160.0, int(9e3 - 4e3 * int8))


def run(folder: Path, wanted: int, measure=figures, space: Space = SPACE) -> list[Trial]:
    begun = study.begin(folder, space)
    study.run_missing(begun, space, wanted, folder, measure=measure, progress=QUIET)
    return study.ended(study.open_study(folder))


def unlike(trials: list[Trial]) -> bool:
    return all(a.settings != b.settings for a in trials for b in trials if a is not b)


def test_the_baselines_come_first_and_nothing_twice(tmp_path: Path) -> None:
    trials = run(tmp_path, 20)
    assert [t.number for t in trials] == list(range(20))
    assert unlike(trials)
    first = [(t.settings.model, t.settings.precision) for t in trials[:4]]
    assert first == [("a.pt", p) for p in PASSES] + [("b.pt", "fp32")]
    assert all(t.settings.pruning_ratio == 0 and not t.settings.fp32 for t in trials[:4])
    assert trials[0].settings.subnetwork == {"num_layers": 4}
    assert {t.settings.chunk_frames for t in trials[:4]} == {16, 20}
    assert all(t.figures == figures(t.settings) for t in trials)


def test_a_search_proposes_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run(tmp_path / "a", 16) == run(tmp_path / "b", 16)


@pytest.mark.parametrize("after", [0, 2, 7])
def test_what_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    measured: list[Settings] = []

    def interrupted(settings: Settings) -> Figures:
        if len(measured) == after:
            raise KeyboardInterrupt
        measured.append(settings)
        return figures(settings)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 14, interrupted)
    assert study.kept(tmp_path / "cut") == after

    def measure(settings: Settings) -> Figures:
        measured.append(settings)
        return figures(settings)

    trials = run(tmp_path / "cut", 14, measure)
    assert len(measured) == len(trials) == 14
    assert trials == run(tmp_path / "whole", 14)
    assert len(run(tmp_path / "cut", 18, measure)) == 18
    assert len(measured) == 18
    assert run(tmp_path / "cut", 10, measure)[:10] == trials[:10]
    assert len(measured) == 18


def test_a_line_that_was_written_half_is_cut(tmp_path: Path) -> None:
    trials = run(tmp_path, 5)
    with (tmp_path / study.JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert run(tmp_path, 8)[:5] == trials


@pytest.mark.parametrize("error", [InputError, CheckFailed, RuntimeError])
def test_a_failed_trial_keeps_its_reason_and_counts(tmp_path: Path, error: type[Exception]) -> None:
    def measure(settings: Settings) -> Figures:
        if settings.pruning_ratio:
            raise error(f"cannot take out {settings.pruning_ratio}")
        return figures(settings)

    trials = run(tmp_path, 16, measure)
    assert [t.number for t in trials] == list(range(16))
    failed = [t for t in trials if t.figures is None]
    assert failed
    assert all(t.reason == f"cannot take out {t.settings.pruning_ratio}" for t in failed)
    assert all(t.reason is None for t in trials if t.figures is not None)
    assert len(run(tmp_path, 18, measure)) == 18


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    small = Space((ModelSpace("a.pt", (16, 8), (0.0,), {}, ()),), "onnxruntime", {"fp32": "onnx"})
    trials = run(tmp_path, 9, space=small)
    assert sorted(t.settings.chunk_frames for t in trials) == [8, 16]


WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_search_study import QUIET, SPACE, figures
from edge_speech_tools.search import study

def slow(settings):
    print(settings, flush=True)
    time.sleep(float(sys.argv[4]))
    return figures(settings)

folder = Path(sys.argv[2])
study.run_missing(study.open_study(folder), SPACE, int(sys.argv[3]), folder, measure=slow, progress=QUIET)
"""


def worker(folder: Path, wanted: int, seconds: float) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(folder), str(wanted), str(seconds)]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    study.begin(tmp_path, SPACE)
    both = [worker(tmp_path, 15, 0.05) for _ in range(2)]
    done = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    trials = study.ended(study.open_study(tmp_path))
    assert [t.number for t in trials] == list(range(15))
    assert unlike(trials)
    assert sum(map(len, done)) == 15


def test_a_process_that_is_killed_loses_one_trial(tmp_path: Path) -> None:
    study.begin(tmp_path, SPACE)
    process = worker(tmp_path, 9, 0.3)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert study.kept(tmp_path) == 2
    trials = run(tmp_path, 9)
    assert [t.number for t in trials] == list(range(9))
    assert unlike(trials)


# -- the space ----------------------------------------------------------------------------------------------


def test_every_answer_can_be_given_and_read_back() -> None:
    random, found = np.random.default_rng(1), []
    for _ in range(300):
        settings = settings_of(SPACE, lambda _, values: values[random.integers(len(values))])
        plain = {**asdict(settings), "fp32": list(settings.fp32)}
        assert Settings.from_json(plain) == settings
        assert settings.model == "a.pt" or (settings.chunk_frames, settings.pruning_ratio) == (20, 0.0)
        assert not settings.fp32 or settings.precision == "int8-static"
        found.append(settings)
    assert {s.chunk_frames for s in found} == {8, 16, 20, 32}
    assert {s.fp32 for s in found if s.model == "a.pt"} == {(), GROUPS[:1], GROUPS[1:], GROUPS}
    assert "a.pt" in in_words(found[0], 2) or "b.pt" in in_words(found[0], 2)


def test_baselines_are_points_of_the_space() -> None:
    for answers in baselines(SPACE):
        settings_of(SPACE, lambda name, values, said=answers: values[values.index(said[name])])


# -- the front ----------------------------------------------------------------------------------------------


def test_the_front_is_that_of_brute_force() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 12, 40):
        points = random.integers(0, 6, (count, 3)).astype(float)
        worse = (points[:, None] >= points[None]).all(2) & (points[:, None] > points[None]).any(2)
        assert pareto(points.tolist()) == (~worse.any(1)).tolist()


def test_noise_of_a_measurement_takes_none_from_the_front() -> None:
    random = np.random.default_rng(2)
    points = random.uniform(1, 2, (40, 3))
    trials = [
        Trial(n, Settings("a.pt", "fp32", n), Figures(wer, 3, rtf, 1, 160, int(1e6 * size)), None)
        for n, (wer, rtf, size) in enumerate(points)
    ]
    failed = Trial(40, Settings("a.pt", "fp32", 99), None, "failed")
    kept = {t.number for t in promising([*trials, failed], [trials[7].settings])}
    assert 7 in kept
    assert len(kept) < 40
    for _ in range(20):
        noise = np.where([False, True, False], random.uniform(0.976, 1.024, (40, 3)), 1)
        assert {n for n, best in enumerate(pareto((points * noise).tolist())) if best} <= kept
