"""The trials: Optuna proposes them, a journal in the cache keeps them, one process or several run them.

Objectives are the WER, the time per second of audio and the bytes, all as small as can be: multi-objective
tree-structured Parzen estimator (Ozaki et al. 2022, https://doi.org/10.1613/jair.1.13188).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.progress import Progress
from edge_speech_tools.search.space import Settings, Space, baselines, in_words, settings_of
from edge_speech_tools.search.trial import Figures, Measure, locked

JOURNAL = "trials.journal"
WRITING, ASKING, TIMING = "writing.lock", "asking.lock", "timing.lock"
# What a trial is given up for; its reason is kept, and the search goes on.
FAILURES = (InputError, CheckFailed, RuntimeError, ValueError)
# Proposals in a row that are all known: then the space has little or nothing new.
TRIES = 100
# How often it is looked what other processes have done.
POLL_S = 0.3
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Trial:
    """One that ended: with `figures`, or with the `reason` why it has none. Numbers count from 0."""

    number: int
    settings: Settings
    figures: Figures | None
    reason: str | None


class _Lock(JournalFileOpenLock):
    """Optuna's own stays behind when its process is killed; this one does not."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Wait for it."""
        self._held.enter_context(locked(self._path))
        return True

    def release(self) -> None:
        """Let the next one."""
        self._held.close()


def open_study(folder: Path) -> optuna.Study:
    """The study that is kept in `folder`, begun there if there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = _Lock(folder / WRITING)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))
    return optuna.create_study(
        study_name="search", storage=storage, directions=["minimize"] * 3, load_if_exists=True
    )


def ended(study: optuna.Study) -> list[Trial]:
    """All that were measured or failed, by number."""
    found = [_trial(one) for one in study.get_trials(deepcopy=False, states=_COUNTED)]
    return sorted(found, key=lambda trial: trial.number)


def kept(folder: Path) -> int:
    """How many trials `folder` holds; nothing is written."""
    return len(ended(open_study(folder))) if (folder / JOURNAL).is_file() else 0


def _trial(one: FrozenTrial) -> Trial:
    plain, figures = one.user_attrs["settings"], one.user_attrs.get("figures")
    return Trial(
        one.user_attrs["number"],
        Settings.from_json(plain),
        None if figures is None else Figures(**figures),
        one.user_attrs.get("reason"),
    )


# -- beginning and going on ---------------------------------------------------------------------------------


def begin(folder: Path, space: Space) -> optuna.Study:
    """The study, with the baselines waiting, and what an interrupted run left undone waiting again."""
    _mend(folder / JOURNAL)
    study = open_study(folder)
    if not study.get_trials(deepcopy=False):
        for number, answers in enumerate(baselines(space)):
            study.enqueue_trial(answers, user_attrs={"number": number})
    for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(one.number, state=TrialState.FAIL)
        known = {key: value for key, value in one.user_attrs.items() if key == "number"}
        study.enqueue_trial(one.params or one.system_attrs.get("fixed_params", {}), user_attrs=known)
    return study


def _mend(journal: Path) -> None:
    """Cut what a killed process wrote half: the last line, if it has no end."""
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def run_missing(
    study: optuna.Study, space: Space, wanted: int, folder: Path, *, measure: Measure, progress: Progress
) -> None:
    """Trials until there are `wanted`, or the space has nothing new. Several processes may do so at once."""
    for _ in progress.bar(range(len(ended(study)), wanted), "search"):
        asked = _next(study, space, wanted, folder)
        if asked is None:
            return
        trial, settings = asked
        try:
            figures = measure(settings)
        except FAILURES as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            trial.set_user_attr("reason", reason)
            done = study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("figures", asdict(figures))
            done = study.tell(trial, [figures.wer, figures.rtf, float(figures.bytes)])
        progress.say(_line(_trial(done), len(space.models)))


def _line(trial: Trial, models: int) -> str:
    said, figures = f"failed: {trial.reason}", trial.figures
    if figures is not None:
        said = f"WER {figures.wer:.2f} %, {1e3 * figures.rtf:.2f} ms/s, {figures.bytes / 1024:.0f} KiB"
    return f"search   trial {trial.number}: {in_words(trial.settings, models)}: {said}"


def _next(
    study: optuna.Study, space: Space, wanted: int, folder: Path
) -> tuple[optuna.Trial, Settings] | None:
    """The next trial that is unlike all others, with the first free number; None when there are enough, or no
    more can be found."""
    with locked(folder / ASKING):
        for attempt in range(TRIES):
            others = study.get_trials(deepcopy=False)
            begun = [t for t in others if t.state in (*_COUNTED, TrialState.RUNNING)]
            if len(begun) >= wanted:
                return None
            study.sampler = _sampler(len(begun), attempt)
            trial = study.ask()
            settings = settings_of(space, trial.suggest_categorical)
            plain = asdict(settings)
            if all(other.user_attrs.get("settings") != _as_stored(plain) for other in begun):
                taken = {other.user_attrs.get("number") for other in others if other.state != TrialState.FAIL}
                free = next(number for number in count() if number not in taken)
                trial.set_user_attr("number", trial.user_attrs.get("number", free))
                trial.set_user_attr("settings", plain)
                return trial, settings
            study.tell(trial, state=TrialState.FAIL)  # a repetition; it does not count
    return None


def _as_stored(plain: dict[str, Any]) -> dict[str, Any]:
    return {**plain, "fp32": list(plain["fp32"])}


def _sampler(begun: int, attempt: int) -> BaseSampler:
    """Seeded by the trials so far, so that a search which was interrupted proposes what it would have."""
    seed = TRIES * begun + attempt
    if attempt:  # the estimator insists on what it has proposed before
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


# -- several processes --------------------------------------------------------------------------------------


@contextmanager
def in_processes(
    work: Callable[..., None], arguments: Sequence[Any], jobs: int
) -> Iterator[Sequence[BaseProcess]]:
    """`work(*arguments)` in `jobs` processes of their own, which end with this."""
    context = get_context("spawn")
    processes = [context.Process(target=work, args=tuple(arguments), daemon=True) for _ in range(jobs)]
    try:
        for process in processes:
            process.start()
        yield processes
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()


def watch(
    study: optuna.Study, space: Space, wanted: int, running: Sequence[BaseProcess], progress: Progress
) -> None:
    """Say what the processes have done, until there are enough trials or no process is left."""
    known = [trial.number for trial in ended(study)]
    for _ in progress.bar(range(len(known), wanted), "search"):
        while not (fresh := [trial for trial in ended(study) if trial.number not in known]):
            if not any(process.is_alive() for process in running):
                return
            time.sleep(POLL_S)
        known.append(fresh[0].number)
        progress.say(_line(fresh[0], len(space.models)))
