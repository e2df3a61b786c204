"""What is checked between sets: what one has in common with another makes its error rate look better."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

from edge_speech.validation.finding import ADVICE, Case, DataSet, Finding, finding


def check_across(sets: Sequence[DataSet]) -> list[Finding]:
    """Audio twice in a set or in two; texts, speakers and sample rates of each two."""
    found = [f for data in sets for f in _copies(data)]
    for one, other in itertools.combinations(sets, 2):
        found += [*_shared_audio(one, other), *_shared_texts(one, other), *_shared_speakers(one, other)]
    return found


def _by_content(data: DataSet) -> dict[str, list[str]]:
    names = defaultdict(list)
    for utterance, measures in data.readable:
        names[measures.content].append(utterance.name)
    return names


def _copies(data: DataSet) -> list[Finding]:
    groups = _by_content(data).values()
    cases = [Case(name, f"the same as {first}") for first, *rest in groups for name in rest]
    return finding(ADVICE, "duplicate audio", data, cases, "the same samples as another utterance of the set")


def _shared_audio(one: DataSet, other: DataSet) -> list[Finding]:
    known = _by_content(one)
    cases = [
        Case(name, f"the same as {known[content][0]}")
        for content, names in _by_content(other).items()
        if content in known
        for name in names
    ]
    message = f"the same samples are in {one.name}: take them out of one of the two"
    return finding(ADVICE, "shared audio", other, cases, message)


def _shared_texts(one: DataSet, other: DataSet) -> list[Finding]:
    known = {" ".join(u.text.split()) for u in one.texts} - {""}
    cases = [Case(u.name, u.text[:60]) for u in other.texts if " ".join(u.text.split()) in known]
    share = len(cases) / max(1, len(other.texts))
    message = (
        f"{share:.0%} of the texts are in {one.name} too: as it should be for commands, not for sentences"
    )
    return finding(ADVICE, "shared texts", other, cases, message)


def _shared_speakers(one: DataSet, other: DataSet) -> list[Finding]:
    cases = [Case(speaker, "speaks in both") for speaker in sorted(one.speakers & other.speakers)]
    message = f"speakers of the same names are in {one.name}: rates say little of new speakers"
    return finding(ADVICE, "shared speakers", other, cases, message)
