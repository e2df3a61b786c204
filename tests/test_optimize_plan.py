"""The plan and the choice: pure functions from what is asked and measured to what is done and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_speech.errors import CheckFailed, InputError
from edge_speech.target import Target, load_target
from edge_speech_tools.choice import Candidate, Rules, choose
from edge_speech_tools.passes import load_passes
from edge_speech_tools.plan import OptimizeConfig, make_plan

PASSES = load_passes()
LINUX, ANDROID, ORIN = map(load_target, ("linux-x86_64", "android-arm64", "jetson-orin"))
PLAIN = OptimizeConfig(Path("model.pt"), "linux-x86_64", Path("bundle"))
EVAL = replace(PLAIN, eval_manifest=Path("eval.jsonl"))
FULL = replace(EVAL, calibration_manifest=Path("calibration.jsonl"))


@pytest.mark.parametrize(
    ("config", "target", "passes"),
    [
        (PLAIN, LINUX, ["onnx"]),
        (EVAL, LINUX, ["onnx", "int4_weights", "int8_dynamic", "int8_weights"]),
        (FULL, LINUX, ["onnx", "int4_weights", "int8_dynamic", "int8_static", "int8_weights"]),
        (
            FULL,
            ANDROID,
            [
                "executorch",
                "executorch_int8_dynamic",
                "executorch_int8_static",
                "torchscript_mobile",
                "torchscript_int8_dynamic",
                "torchscript_int8_static",
            ],
        ),
        (PLAIN, ORIN, ["onnx", "tensorrt"]),
        (replace(FULL, precision="int8-static"), LINUX, ["onnx", "int8_static"]),
        (
            replace(PLAIN, precision="int8-dynamic", backends=("torchscript_mobile",)),
            ANDROID,
            ["torchscript_int8_dynamic", "torchscript_mobile"],
        ),
        (replace(PLAIN, backends=("onnxruntime",)), ORIN, ["onnx"]),
        (replace(PLAIN, precision="fp16"), ORIN, ["onnx", "tensorrt"]),
    ],
)
def test_passes_in_running_order(config: OptimizeConfig, target: Target, passes: list[str]) -> None:
    assert list(make_plan(config, target, PASSES).passes) == passes


def test_scales_in_the_checkpoint_do_instead_of_recordings() -> None:
    asked = replace(EVAL, precision="int8-static")
    assert make_plan(asked, LINUX, PASSES, scaled=True).passes == ("onnx", "int8_static")
    assert "int8_static" in make_plan(EVAL, LINUX, PASSES, scaled=True).candidates


def test_ranges_of_outputs_are_in_no_checkpoint() -> None:
    with pytest.raises(InputError, match=r"executorch/int8-static needs recordings.*--calibration"):
        make_plan(
            replace(EVAL, precision="int8-static", backends=("executorch",)), ANDROID, PASSES, scaled=True
        )


def test_a_pass_without_its_package_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PASSES["executorch"], "REQUIRES", "no_such_package")
    plan = make_plan(PLAIN, ANDROID, PASSES)
    assert plan.passes == ("torchscript_mobile",)
    assert 'pip install "edge-speech[no_such_package]"' in plan.left_out[0]
    with pytest.raises(InputError, match="executorch/fp32 needs no_such_package"):
        make_plan(replace(PLAIN, precision="fp32", backends=("executorch",)), ANDROID, PASSES)


def test_needs_run_first_whatever_the_order_of_files() -> None:
    backwards = dict(reversed(PASSES.items()))
    for target in (LINUX, ANDROID, ORIN):
        plan = make_plan(FULL, target, backwards)
        for name in plan.passes:
            before = plan.passes[: plan.passes.index(name)]
            assert set(PASSES[name].NEEDS) <= set(before)


def test_backends_keep_the_targets_order() -> None:
    plan = make_plan(FULL, ORIN, PASSES)
    backends = [PASSES[name].BACKEND for name in plan.candidates]
    assert list(dict.fromkeys(backends)) == ["tensorrt", "onnxruntime"]
    assert backends == sorted(backends, reverse=True)


def test_what_cannot_be_judged_is_left_out_and_named() -> None:
    without_eval = make_plan(replace(FULL, eval_manifest=None), LINUX, PASSES)
    assert [reason.split(":")[0] for reason in without_eval.left_out] == [
        "onnxruntime/int4-weight-only",
        "onnxruntime/int8-dynamic",
        "onnxruntime/int8-static",
        "onnxruntime/int8-weight-only",
    ]
    assert "--eval" in without_eval.left_out[0]
    without_calibration = make_plan(EVAL, LINUX, PASSES)
    assert len(without_calibration.left_out) == 1
    assert "--calibration" in without_calibration.left_out[0]


@pytest.mark.parametrize(
    ("config", "target", "named"),
    [
        (replace(PLAIN, backends=("tensorrt",)), LINUX, "it has onnxruntime"),
        (
            replace(PLAIN, precision="fp16"),
            LINUX,
            "it offers fp32, int8-dynamic, int8-static, int8-weight-only, int4-weight-only, auto",
        ),
        (replace(PLAIN, precision="int4"), LINUX, "int4"),
        (replace(EVAL, precision="int8-static"), LINUX, "--calibration"),
        (replace(PLAIN, precision="fp16", backends=("onnxruntime",)), ORIN, "does not make fp16"),
    ],
)
def test_what_a_target_does_not_have_is_refused(config: OptimizeConfig, target: Target, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        make_plan(config, target, PASSES)
    assert "\n" not in str(error.value)


def test_the_plan_is_text_and_data() -> None:
    plan = make_plan(FULL, LINUX, PASSES)
    actions = [step["action"] for step in plan.as_json()["steps"]]
    measured = ["parity", "quality", "latency", "drift"]
    assert actions == ["load", "lint", *["build"] * 5, *measured, "choose", "bundle"]
    assert len(plan.as_text().splitlines()) == len(actions) + len(plan.left_out)


SPEED = Rules("auto", "speed", accuracy_budget=0.5, measures_device=True, latency_budget_ms=50)
FP32 = Candidate("ort/fp32", "ort", "fp32", bytes=4000, argmax_agreement=1.0, wer_added=0.0, latency_ms=1.0)
INT8 = Candidate("ort/int8", "ort", "int8", bytes=1000, argmax_agreement=0.99, wer_added=0.2, latency_ms=0.8)


@pytest.mark.parametrize(
    ("int8", "rules", "kept", "why"),
    [
        (INT8, SPEED, "ort/int8", "measured faster"),
        (replace(INT8, latency_ms=0.97), SPEED, "ort/fp32", "not faster by 5%"),
        (replace(INT8, latency_ms=1.3), SPEED, "ort/fp32", "not faster"),
        (replace(INT8, latency_ms=None), SPEED, "ort/fp32", "not measured"),
        (replace(INT8, argmax_agreement=0.8), SPEED, "ort/fp32", "only 80.0% of the frames"),
        (replace(INT8, wer_added=0.6), SPEED, "ort/fp32", "over the accuracy budget"),
        (INT8, replace(SPEED, measures_device=False), "ort/fp32", "cannot measure"),
        (replace(INT8, latency_ms=1.3), replace(SPEED, prefer="size"), "ort/int8", "prefers size"),
        (replace(INT8, wer_added=0.6), replace(SPEED, prefer="size"), "ort/fp32", "over the accuracy budget"),
        (replace(INT8, bytes=5000), replace(SPEED, prefer="size"), "ort/fp32", "prefers size"),
    ],
)
def test_int8_must_earn_its_place(int8: Candidate, rules: Rules, kept: str, why: str) -> None:
    for candidates in ([FP32, int8], [int8, FP32]):
        choice = choose(candidates, rules)
        assert choice.kept == (kept,)
        assert any(why in reason and reason.startswith("ort/int8") for reason in choice.reasons)
        assert any(reason.startswith(f"{kept} kept") for reason in choice.reasons)


def test_the_fastest_of_several_wins() -> None:
    other = replace(INT8, key="ort/int8-static", precision="int8-static", latency_ms=0.5)
    assert choose([FP32, INT8, other], SPEED).kept == ("ort/int8-static",)


def test_one_artifact_per_backend_in_order() -> None:
    planned = Candidate(
        "trt/fp16", "trt", "fp16", bytes=2000, argmax_agreement=1.0, wer_added=0.1, latency_ms=None
    )
    assert choose([planned, FP32, INT8], SPEED).kept == ("trt/fp16", "ort/int8")


def test_a_precision_that_was_asked_for_is_reported_beside_fp32() -> None:
    choice = choose([replace(INT8, latency_ms=1.5)], replace(SPEED, precision="int8"), [FP32])
    assert choice.kept == ("ort/int8",)
    assert choice.reasons[-1].endswith("1000 bytes against 4000, 1.500 ms per chunk against 1.000 ms.")


@pytest.mark.parametrize(
    ("p99_ms", "on_device", "said"),
    [
        (12.0, True, "is inside the target's budget of 50 ms: 99 % of the chunks take at most 12.000 ms."),
        (51.0, True, "is over the target's budget"),
        (12.0, False, "measured on the host, not on the device."),
    ],
)
def test_the_latency_budget_is_judged_aloud(p99_ms: float, on_device: bool, said: str) -> None:
    rules = replace(SPEED, measures_device=on_device)
    reasons = choose([replace(FP32, latency_p99_ms=p99_ms)], rules).reasons
    assert said in reasons[-1]


def test_the_accuracy_gate() -> None:
    asked = replace(SPEED, precision="int8")
    with pytest.raises(CheckFailed, match=r"\+2\.00 points"):
        choose([replace(INT8, wer_added=2.0)], asked)
    assert choose([replace(INT8, wer_added=0.5)], asked).kept == ("ort/int8",)
    assert choose([replace(INT8, wer_added=None)], asked).kept == ("ort/int8",)
