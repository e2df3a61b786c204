"""What is checked of one set's audio and lengths. Each check: DataSet → findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from edge_speech.utterance import Utterance
from edge_speech.validation.finding import ADVICE, BROKEN, Case, DataSet, Finding, finding
from edge_speech.validation.measures import Measures

CLEAN_SNR_DB = 35.0
_SILENT_DB = -60.0
_OFFSET_SHARE = 0.1  # of the root mean square: a hundredth of the energy
_OFFSET_LEAST = 1e-3
_DURATION_SLACK_S = 0.1
_TAIL = 0.05
_LEAST_SPREAD = np.log(1.25)  # a set of equal lengths has no spread
_FEWEST = 8
_SHOWN_NOISIEST = 10


def files(data: DataSet) -> list[Finding]:
    """Missing and unreadable files."""
    lost = [Case(c.utterance.name, c.problem) for c in data.checked if c.missing]
    odd = [Case(c.utterance.name, c.problem) for c in data.checked if c.measures is None and not c.missing]
    return [
        *finding(BROKEN, "missing", data, lost, "files are missing; paths are relative to the manifest"),
        *finding(BROKEN, "unreadable", data, odd, "files cannot be read, are empty or are cut off"),
    ]


def sample_rates(data: DataSet) -> list[Finding]:
    """Rates other than the line says, and rates that few of the set have."""
    wrong = [
        Case(u.name, f"{m.sample_rate} Hz, the manifest says {u.extra['sample_rate']}")
        for u, m in data.readable
        if u.extra.get("sample_rate", m.sample_rate) != m.sample_rate
    ]
    rates = Counter(m.sample_rate for _, m in data.readable).most_common()
    rest = [Case(u.name, f"{m.sample_rate} Hz") for u, m in data.readable if m.sample_rate != rates[0][0]]
    mixed = "sample rates are mixed: " + ", ".join(f"{rate} Hz × {count}" for rate, count in rates)
    mixed += "; what is recorded at a low rate lacks the high bins"
    return [
        *finding(ADVICE, "sample rate", data, wrong, "sample rates are not what the manifest says"),
        *finding(ADVICE, "mixed rates", data, rest, mixed),
    ]


def durations(data: DataSet) -> list[Finding]:
    """Lengths far from the set's, and from what the manifest says."""
    stated = [
        Case(u.name, f"{m.duration_s:.2f} s, the manifest says {u.duration_s:.2f}")
        for u, m in data.readable
        if u.duration_s is not None and abs(u.duration_s - m.duration_s) > _DURATION_SLACK_S
    ]
    lengths = [(u, m.duration_s) for u, m in data.readable]
    outliers = _outliers(lengths, "s")
    return [
        *finding(ADVICE, "duration", data, stated, "durations are not what the manifest says"),
        *finding(ADVICE, "duration outliers", data, outliers, "much shorter or longer than the others"),
    ]


def speaking_rates(data: DataSet) -> list[Finding]:
    """Characters per second far from the set's: often a wrong text, or audio cut off."""
    rates = [(u, len(u.text) / m.duration_s) for u, m in data.readable if u.text.strip()]
    message = "much faster or slower than the others: text and audio may not belong together"
    return finding(ADVICE, "speaking rate outliers", data, _outliers(rates, "characters/s"), message)


def _outliers(values: Sequence[tuple[Utterance, float]], unit: str) -> list[Case]:
    """Values, on a logarithmic scale, twice as far from the median as the outermost 5 % on their side begin.

    Lengths are skewed, to the left in cut books and to the right in commands, so each side has its own fence.
    """
    if len(values) < _FEWEST:
        return []
    logs = np.log([max(value, 1e-9) for _, value in values])
    middle = float(np.median(logs))  # of few values the outermost one counts to no tail
    low, high = np.quantile(logs, _TAIL, method="higher"), np.quantile(logs, 1 - _TAIL, method="lower")
    least = middle - 2 * max(middle - low, _LEAST_SPREAD)
    most = middle + 2 * max(high - middle, _LEAST_SPREAD)
    usual = f"usual {np.exp(middle):.2f}"
    far = [(u, v) for (u, v), x in zip(values, logs, strict=True) if not least <= x <= most]
    return [Case(u.name, f"{v:.2f} {unit}, {usual}") for u, v in sorted(far, key=lambda pair: pair[1])]


def levels(data: DataSet) -> list[Finding]:
    """Silence, clipping and an offset of the zero line."""

    def cases(holds: Callable[[Measures], bool], detail: Callable[[Measures], str]) -> list[Case]:
        return [Case(u.name, detail(m)) for u, m in data.readable if holds(m)]

    silent = cases(lambda m: m.level_db < _SILENT_DB, lambda m: f"{m.level_db:.0f} dB")
    clipped = cases(lambda m: m.clipped_samples > 0, lambda m: f"{m.clipped_samples} samples at full scale")
    shifted = cases(_is_shifted, lambda m: f"mean {m.dc_offset:+.4f} at a level of {m.rms:.4f}")
    return [
        *finding(ADVICE, "silent", data, silent, f"quieter than {_SILENT_DB:.0f} dB: nothing to learn from"),
        *finding(ADVICE, "clipped", data, clipped, "clipped: recorded too loud"),
        *finding(
            ADVICE,
            "dc offset",
            data,
            shifted,
            "the zero line is off: fbank and MFCC remove that per frame, log-mel does not",
        ),
    ]


def _is_shifted(m: Measures) -> bool:
    return abs(m.dc_offset) > max(_OFFSET_LEAST, _OFFSET_SHARE * m.rms)


def noise(data: DataSet) -> list[Finding]:
    """One piece of advice on the set's median signal-to-noise ratio, with the noisiest utterances."""
    ratios = [(u.name, m.snr_db) for u, m in data.readable if m.snr_db is not None] if data.texts else []
    if not ratios:
        return []
    median = float(np.median([snr_db for _, snr_db in ratios]))
    below = sorted((r for r in ratios if r[1] < CLEAN_SNR_DB), key=lambda ratio: ratio[1])
    cases = tuple(Case(name, f"{snr_db:.0f} dB") for name, snr_db in below[:_SHOWN_NOISIEST])
    what = f"median SNR {median:.1f} dB, below {CLEAN_SNR_DB:.0f} dB are {len(below)} of {len(ratios)}: "
    if median >= CLEAN_SNR_DB:
        what += "clean; train with noise added (`data.noise`), or the device will be the first to hear any"
    else:
        what += "noisy already, or cut without pauses; add little noise, and listen to the noisiest"
    return [Finding(ADVICE, "noise", data.name, len(below), what, cases)]


CHECKS: tuple[Callable[[DataSet], list[Finding]], ...] = (
    files, sample_rates, durations, speaking_rates, levels, noise
)  # fmt: skip
