"""Target profiles: every file of targets/ is sound, and mistakes in a profile are told in one line."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from edge_speech.cli import main
from edge_speech.errors import InputError
from edge_speech.target import SOURCE_KINDS, Target, list_targets, load_target, read_target

TARGETS = list_targets()
BOARDS = [target for target in TARGETS if target.gpu]
of_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@of_target
def test_sources_are_addresses_or_say_what_they_are(target: Target) -> None:
    for figure, source in target.sources.items():
        assert source.startswith(SOURCE_KINDS), figure
        assert len(source) > 12, figure
        for address in re.findall(r"https://\S+", source):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}/\S+", address), figure


@of_target
def test_what_is_assumed_is_not_passed_off_as_confirmed(target: Target) -> None:
    for figure, source in target.sources.items():
        assert not source.startswith("assumed: ") or figure in target.unconfirmed, figure


@of_target
def test_power_modes_are_sane(target: Target) -> None:
    for mode in target.power_modes:
        assert 1 <= mode.cpu_cores <= target.cores
        assert 1 <= mode.memory_bandwidth_gb_s <= 1000
        for backend in target.backends:
            peaks = [target.peak_gops(backend, arithmetic, mode) for arithmetic in ("fp32", "fp16", "int8")]
            assert 1 < peaks[0] <= min(peaks[1:])
        if target.gpu:
            (accelerated,) = target.gpu.backends
            assert target.peak_gops(accelerated, "fp32", mode) > target.cpu.peak_gops("fp32", mode.cpu_ghz)
    best = [target.peak_gops(target.backends[0], "fp32", mode) for mode in target.power_modes]
    assert best[0] == max(best)


@of_target
def test_limits_are_below_what_the_device_has(target: Target) -> None:
    assert target.artifact_limit_mib <= target.memory_limit_mib <= target.ram_mib
    assert set(target.tiles.values()) <= {8, 16, 32, 64}


@pytest.mark.parametrize("target", BOARDS, ids=lambda t: t.name)
def test_tensorrt_versions(target: Target) -> None:
    assert target.gpu is not None
    for (_, older), (_, newer) in pairwise(
        sorted(target.gpu.jetpack.items(), key=lambda one: numbers(one[0]))
    ):
        assert numbers(older) <= numbers(newer)
    assert target.recipe["tensorrt_major"] in (8, 10, 11)
    assert target.recipe["compute_capability"] in ("5.3", "7.2", "8.7", "11.0")


# What data sheets say, in 10^9 operations a second: sparse figures are twice what is computed here.
DATA_SHEETS = [
    ("jetson-orin", "MAXN", "int8", 171_000 / 2),
    ("jetson-orin", "50W", "int8", 109_000 / 2),
    ("jetson-orin", "30W", "int8", 41_000 / 2),
    ("jetson-orin", "15W", "int8", 14_000 / 2),
    ("jetson-orin", "MAXN", "fp32", 5_300),
    ("jetson-orin-nx", "MAXN_SUPER", "int8", (157_000 - 2 * 40_000) / 2),
    ("jetson-orin-nano", "MAXN_SUPER", "int8", 67_000 / 2),
    ("jetson-nano", "MAXN (10W)", "fp16", 472),
    ("jetson-thor", "MAXN", "int8", 1_035_000 / 2),
]


@pytest.mark.parametrize(("name", "mode", "arithmetic", "gops"), DATA_SHEETS)
def test_peaks_are_those_of_the_data_sheets(name: str, mode: str, arithmetic: str, gops: float) -> None:
    target = load_target(name)
    (found,) = (m for m in target.power_modes if m.name == mode)
    assert target.peak_gops("tensorrt", arithmetic, found) == pytest.approx(gops, rel=0.05)


def test_names_that_are_not_there_are_met_with_near_ones() -> None:
    assert load_target("linux-arm64").arch == "aarch64"
    with pytest.raises(InputError, match=r"did you mean .*linux-arm64"):
        load_target("linux-arm")
    with pytest.raises(InputError, match="linux-x86_64"):
        load_target("../targets/linux-x86_64")


GOOD = (Path(__file__).parent.parent / "targets" / "jetson-orin-nano.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("cores = 6\n", "cores = 0\n", "'cores'.*from 1"),
        ("cores = 6\n", 'cores = "6"\n', "'cores'"),
        ("cores = 6\n", "cores = true\n", "'cores'"),
        ("cores = 6\n", "cores = 6\ncorse = 7\n", "unknown key 'corse'; did you mean cores"),
        ("[device]", "[gadget]", "unknown key 'gadget'"),
        ("[device]", "[device", "not TOML"),
        ("[cpu]", "[cpus]", "unknown key 'cpus'; did you mean .*cpu"),
        ('prefer = "speed"', 'prefer = "beauty"', "'prefer'.*speed, size"),
        ('backends = ["tensorrt", "onnxruntime"]', "backends = []", "'backends'"),
        (
            'backends = ["tensorrt", "onnxruntime"]',
            'backends = ["onnxruntime"]',
            "'backends'.*without tensorrt",
        ),
        ("latency_budget_ms = 30", "latency_budget_ms = inf", "'latency_budget_ms'"),
        ("latency_budget_ms = 30", "latency_budget_s = 30", "did you mean latency_budget_ms"),
        ("memory_limit_mib = 1024", "memory_limit_mib = -1", "'memory_limit_mib'"),
        ("{ fp16 = 8, int8 = 16 }", "{ fp16 = 8, int4 = 16 }", "unknown key 'int4'"),
        ("{ fp16 = 8, int8 = 16 }", "{ fp16 = 8.5, int8 = 16 }", "'fp16' must be an integer"),
        ("tensorrt = 5", "tensort = 5", "unknown key 'tensort'; did you mean tensorrt"),
        ("tensorrt = 5\n", "", "'overhead_us'.*tensorrt"),
        ("fp32 = 16,", "", "'operations_per_clock'.*fp32"),
        ('"6.1" = "10.3.0"', '"6.1" = "ten"', "'6.1'.*TensorRT version"),
        ('default_jetpack = "6.2"', 'default_jetpack = "6.3"', "'default_jetpack'.*6.2"),
        ('compute_capability = "8.7"', 'compute_capability = "sm_87"', "'compute_capability'"),
        ("gpu_ghz = 0.918", "gpu_ghz = 918", "'gpu_ghz'.*0.05 to 10"),
        ("gpu_ghz = 0.918", "gpu_mhz = 918", "unknown key 'gpu_mhz'; did you mean .*gpu_ghz"),
        ("cpu_cores = 6", "cpu_cores = 7", "'cpu_cores'.*1 to 6"),
        ('name = "25W"', 'name = "15W"', "'power_modes'.*name of its own"),
        ("[[power_modes]]", "[[power_mode]]", "unknown key 'power_mode'"),
        ('"device.ram_mib" = "https://', '"device.ram_mib" = "somewhere ', "'device.ram_mib' must be where"),
        ('"device.ram_mib" = ', '"device.ram" = ', "'device.ram_mib' must be where"),
        ("[sources]", '[sources]\n"device.colour" = "chosen: green"', "unknown key 'device.colour'"),
        ('  "gpu.jetpack",', '  "gpu.jetpak",', "unknown figure 'gpu.jetpak'; did you mean gpu.jetpack"),
        ('name = "jetson-orin-nano"', 'name = "t"', "'name'.*jetson-orin-nano"),
    ],
)
def test_odd_profiles(tmp_path: Path, old: str, new: str, match: str) -> None:
    path = tmp_path / "jetson-orin-nano.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert read_target(path) == load_target("jetson-orin-nano")
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=match) as error:
        read_target(path)
    assert "\n" not in str(error.value)


def test_a_gpu_needs_clocks_and_clocks_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "raspberry-pi-5.toml"
    good = (Path(__file__).parent.parent / "targets" / path.name).read_text(encoding="utf-8")
    path.write_text(good.replace("cpu_ghz", "gpu_ghz = 1\ncpu_ghz"), encoding="utf-8")
    with pytest.raises(InputError, match="unknown key 'gpu_ghz'"):
        read_target(path)
    assert load_target("raspberry-pi-5").recipe == {}


def test_the_command_shows_all_and_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(TARGETS)]] == [t.name for t in TARGETS]
    assert main(["targets", "--json"]) == 0
    assert [t["name"] for t in json.loads(capsys.readouterr().out)] == [t.name for t in TARGETS]


@of_target
def test_the_command_shows_every_figure_with_its_source(
    target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["targets", target.name]) == 0
    text = capsys.readouterr().out
    for figure, source in target.sources.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"{figure} "))
        assert line.endswith(source)
        assert ("unconfirmed" in line) == (figure in target.unconfirmed)
    assert all(mode.name in text for mode in target.power_modes)
    assert main(["targets", target.name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sources"] == target.sources
    assert document["power_modes"][0]["cpu_peak_gops"]["fp32"] > 0


def test_the_command_refuses_a_stranger(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "jetson-oron"]) == 2
    assert "did you mean jetson-orin" in capsys.readouterr().err
