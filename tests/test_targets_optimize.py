"""Every profile of targets/ can be optimised for: its backends and precisions have passes that make them."""

from __future__ import annotations

import pytest

from edge_speech.target import Target, list_targets
from edge_speech_tools.passes import load_passes, on_request

TARGETS = list_targets()
PASSES = load_passes()
MADE = {(p.BACKEND, p.PRECISION) for p in PASSES.values() if p.BACKEND not in on_request(PASSES)}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_every_backend_and_precision_is_made_by_a_pass(target: Target) -> None:
    offered = {(b, p) for b in target.backends for p in target.precisions} & MADE
    assert {backend for backend, _ in offered} == set(target.backends)
    assert {precision for _, precision in offered} == set(target.precisions)


def test_every_pass_serves_some_target() -> None:
    wanted = {(b, p) for t in TARGETS for b in t.backends for p in t.precisions}
    assert wanted >= MADE


def test_the_targets_of_this_release_are_there() -> None:
    assert {"linux-x86_64", "linux-arm64", "android-arm64", "jetson-orin"} <= {t.name for t in TARGETS}
