"""Every profile of targets/ can be optimised for, and what no pass makes yet is left out aloud."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_speech.errors import InputError
from edge_speech.target import Target, list_targets, load_target
from edge_speech_tools.passes import load_passes, on_request
from edge_speech_tools.plan import OptimizeConfig, make_plan

TARGETS = list_targets()
PASSES = load_passes()
MADE = {(p.BACKEND, p.PRECISION) for p in PASSES.values() if p.BACKEND not in on_request(PASSES)}


def config(target: str) -> OptimizeConfig:
    manifest = Path("some.jsonl")
    return OptimizeConfig(
        Path("model.pt"), target, Path("bundle"), eval_manifest=manifest, calibration_manifest=manifest
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_everything_is_planned_or_left_out_by_name(target: Target) -> None:
    plan = make_plan(config(target.name), target, PASSES)
    planned = {(PASSES[name].BACKEND, PASSES[name].PRECISION) for name in plan.candidates}
    assert planned == {(b, p) for b in target.backends for p in target.precisions} & MADE
    assert planned
    idle = [b for b in target.backends if b not in {backend for backend, _ in planned}]
    odd = [p for p in target.precisions if p not in {precision for _, precision in planned}]
    assert [reason.split(":")[0] for reason in plan.left_out] == [*idle, *odd]


def test_an_engine_and_a_precision_of_the_future_do_not_end_the_job() -> None:
    target = load_target("linux-x86_64")
    future = replace(
        target, backends=("npu", *target.backends), precisions=("int2-static", *target.precisions)
    )
    plan = make_plan(config(target.name), future, PASSES)
    assert plan.candidates == make_plan(config(target.name), target, PASSES).candidates
    assert [reason.split(":")[0] for reason in plan.left_out] == ["npu", "int2-static"]
    assert "no pass" in plan.as_text()
    with pytest.raises(InputError, match=r"makes nothing for npu.*has npu, onnxruntime"):
        make_plan(replace(config(target.name), backends=("npu",)), future, PASSES)
    with pytest.raises(InputError, match="does not make int2-static"):
        make_plan(replace(config(target.name), precision="int2-static"), future, PASSES)


def test_every_pass_serves_some_target() -> None:
    wanted = {(b, p) for t in TARGETS for b in t.backends for p in t.precisions}
    assert wanted >= MADE


def test_the_targets_of_this_release_are_there() -> None:
    boards = {f"jetson-{name}" for name in ("nano", "xavier-nx", "orin-nano", "orin-nx", "orin", "thor")}
    others = {"android-arm64", "ios-arm64", "raspberry-pi-4", "raspberry-pi-5", "linux-arm64"}
    assert {t.name for t in TARGETS} >= boards | others | {"linux-x86_64", "linux-x86_64-vnni"}
