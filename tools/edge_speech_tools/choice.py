"""Which artifact of each backend enters the bundle, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_speech.errors import CheckFailed
from edge_speech.verification import LOWEST_AGREEMENT
from edge_speech_tools.plan import AUTO, REFERENCE

# Two medians of one run closer than this are no difference.
LATENCY_MARGIN = 0.05
# Below this share of frames with the same best token an artifact is another model, whatever its WER.
MIN_AGREEMENT = LOWEST_AGREEMENT

# Precisions that have to beat all others, so that nothing is lost to a difference within the noise.
COARSE = ("int4-weight-only",)


@dataclass(frozen=True)
class Candidate:
    """What was measured of one artifact, or None. `wer_added` is in points, `latency_ms` in what `timed` of
    the rules says."""

    key: str
    backend: str
    precision: str
    bytes: int
    argmax_agreement: float | None
    wer_added: float | None
    latency_ms: float | None
    latency_p99_ms: float | None = None


@dataclass(frozen=True)
class Rules:
    """`measures_device` is false when the host's latency says nothing about the target's."""

    precision: str
    prefer: str
    accuracy_budget: float
    measures_device: bool
    latency_budget_ms: float
    timed: str = "ms per chunk"


@dataclass(frozen=True)
class Choice:
    """Keys of the kept artifacts, best first, and one sentence for each artifact kept or left."""

    kept: tuple[str, ...]
    reasons: tuple[str, ...]


def choose(candidates: Sequence[Candidate], rules: Rules, references: Sequence[Candidate] = ()) -> Choice:
    """One artifact per backend, in the order the candidates come. Raises CheckFailed when none is left.

    `references` were measured for comparison only.
    """
    kept: list[str] = []
    reasons: list[str] = []
    for backend in dict.fromkeys(c.backend for c in candidates):
        fit = [c for c in candidates if c.backend == backend and _is_fit(c, rules, reasons)]
        if fit:
            best = _best(fit, rules, reasons)
            kept.append(best.key)
            reasons += _deadline(best, rules)
            reasons += [_beside(best, r) for r in references if r.backend == backend]
    if not kept:
        raise CheckFailed(f"no artifact passed, the bundle was not written: {' '.join(reasons)}")
    return Choice(tuple(kept), tuple(reasons))


def _is_fit(candidate: Candidate, rules: Rules, reasons: list[str]) -> bool:
    agreement = candidate.argmax_agreement
    if agreement is not None and agreement < MIN_AGREEMENT:
        reasons.append(
            f"{candidate.key} left out: the best token is PyTorch's in only {agreement:.1%} of the frames, "
            f"at least {MIN_AGREEMENT:.0%} are needed."
        )
        return False
    if candidate.wer_added is None or candidate.wer_added <= rules.accuracy_budget:
        return True
    reasons.append(
        f"{candidate.key} left out: WER {candidate.wer_added:+.2f} points, over the accuracy budget of "
        f"{rules.accuracy_budget:g}."
    )
    return False


def _best(fit: list[Candidate], rules: Rules, reasons: list[str]) -> Candidate:
    """First the reference (fp32 if there is one), coarse ones last; each must beat the best so far."""
    best, *others = sorted(fit, key=lambda c: (c.precision != REFERENCE, c.precision in COARSE))
    for other in others:
        wins, why = _compare(other, best, rules)
        reasons.append(f"{other.key} {'preferred to' if wins else 'left out against'} {best.key}: {why}.")
        best = other if wins else best
    reasons.append(f"{best.key} kept: {_merit(best, rules)}.")
    return best


def _compare(other: Candidate, best: Candidate, rules: Rules) -> tuple[bool, str]:
    if rules.prefer == "size":
        return (
            other.bytes < best.bytes,
            f"{other.bytes} bytes against {best.bytes}, and the target prefers size",
        )
    if not rules.measures_device:
        return False, "the target prefers speed, which this host cannot measure for it"
    if other.latency_ms is None or best.latency_ms is None:
        return False, "its latency was not measured"
    change = other.latency_ms / best.latency_ms - 1
    figures = f"{other.latency_ms:.3f} {rules.timed} against {best.latency_ms:.3f} ({change:+.0%})"
    if change < -LATENCY_MARGIN:
        return True, f"measured faster, {figures}"
    return False, f"not faster by {LATENCY_MARGIN:.0%}, {figures}"


def _merit(best: Candidate, rules: Rules) -> str:
    asked = "asked for" if rules.precision != AUTO else f"best for a target that prefers {rules.prefer}"
    if best.wer_added is None:
        return f"{asked}; accuracy not measured (no --eval, or no engine here runs it)"
    return f"{asked}; WER {best.wer_added:+.2f} points against PyTorch, budget {rules.accuracy_budget:g}"


def _deadline(best: Candidate, rules: Rules) -> list[str]:
    """Whether the target's latency budget holds; nothing where that was not measured."""
    if best.latency_p99_ms is None:
        return []
    held = "inside" if best.latency_p99_ms <= rules.latency_budget_ms else "over"
    where = "" if rules.measures_device else ", measured on the host, not on the device"
    figures = f"99 % of the chunks take at most {best.latency_p99_ms:.3f} ms"
    return [f"{best.key} is {held} the target's budget of {rules.latency_budget_ms:g} ms: {figures}{where}."]


def _beside(best: Candidate, reference: Candidate) -> str:
    size = f"{best.key} beside {reference.key}: {best.bytes} bytes against {reference.bytes}"
    if best.latency_ms is None or reference.latency_ms is None:
        return f"{size}."
    return f"{size}, {best.latency_ms:.3f} ms per chunk against {reference.latency_ms:.3f} ms."
