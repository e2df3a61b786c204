"""edge-speech targets"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from edge_speech.commands.table import print_table
from edge_speech.target import list_targets, load_target

SUMMARY = "list the devices a model can be optimised for, or show one in full"
EXAMPLES = "edge-speech targets\nedge-speech targets jetson-orin\nedge-speech targets --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The one to show."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="show this one, with the source of each figure"
    )


def run(args: argparse.Namespace) -> list[dict[str, Any]] | dict[str, Any]:
    """All profiles, or one."""
    if args.name is not None:
        return load_target(args.name).as_json()
    return [target.as_json() for target in list_targets()]


def show(document: list[dict[str, Any]] | dict[str, Any], args: argparse.Namespace) -> None:
    """One line per target, or everything about one."""
    if isinstance(document, dict):
        return _show_one(document)
    rows = [
        ["target", "arch", "cores", "RAM MiB", "GB/s", "fp32 GFLOPS", "int8 GOPS", "backends", "description"]
    ]
    for t in document:
        mode = t["power_modes"][0]
        peaks = mode["gpu_peak_gops"] or mode["cpu_peak_gops"]
        figures = [f"{peaks[a]:.0f}" if a in peaks else "-" for a in ("fp32", "int8")]
        sizes = [str(t["cores"]), str(t["ram_mib"]), f"{mode['memory_bandwidth_gb_s']:g}"]
        rows.append([t["name"], t["arch"], *sizes, *figures, ",".join(t["backends"]), t["description"]])
    print_table(rows, left=(0, 1, 7, 8))
    print(
        "Peaks of the first power mode, of the GPU or else of one core; `edge-speech targets NAME` has all."
    )


def _show_one(target: dict[str, Any]) -> None:
    print(f"{target['name']}: {target['description']}\n")
    print_table(list(_facts(target)), left=(0, 1))
    print()
    print_table(_mode_rows(target), left=(0,))
    print("\nPeaks in 10^9 operations a second, cores x GHz x operations per clock; a CPU's of one core.\n")
    rows = [["figure", "", "source"]]
    for figure, source in target["sources"].items():
        rows.append([figure, "unconfirmed" if figure in target["unconfirmed"] else "", source])
    print_table(rows, left=(0, 1, 2))


def _facts(t: dict[str, Any]) -> Iterator[list[str]]:
    yield ["device", f"{t['arch']}, {t['cores']} cores, {t['ram_mib']} MiB"]
    yield ["cpu", f"{t['cpu']['name']}, operations per clock {_plain(t['cpu']['operations_per_clock'])}"]
    if gpu := t["gpu"]:
        yield ["gpu", f"{gpu['name']}, operations per clock {_plain(gpu['operations_per_clock'])}"]
        yield ["", f"compute capability {gpu['compute_capability']}, {gpu['dla_cores']} DLA cores"]
        yield ["JetPack: TensorRT", f"{_plain(gpu['jetpack'])}; built for {gpu['default_jetpack']}"]
    yield ["backends", ", ".join(t["backends"])]
    yield ["precisions", ", ".join(t["precisions"])]
    yield ["prefers", f"{t['prefer']}; tiles {_plain(t['tiles'])}"]
    limits = f"{t['artifact_limit_mib']:g} MiB an artifact, {t['memory_limit_mib']:g} MiB of memory"
    yield ["limits", f"{t['latency_budget_ms']:g} ms a chunk, {limits}"]
    yield ["overhead per node", f"{_plain(t['overhead_us'])} us"]


def _mode_rows(target: dict[str, Any]) -> list[list[str]]:
    kinds = ["cpu", "gpu"] if target["gpu"] else ["cpu"]
    heads = [f"{kind} {what}" for kind in kinds for what in ("cores", "GHz", "fp32", "fp16", "int8")]
    rows = [["power mode", "GB/s", *heads]]
    for mode in target["power_modes"]:
        cells = [mode["name"], f"{mode['memory_bandwidth_gb_s']:g}"]
        for kind in kinds:
            peaks = mode[f"{kind}_peak_gops"]
            cells += [str(mode[f"{kind}_cores"]), f"{mode[f'{kind}_ghz']:g}"]
            cells += [f"{peaks[a]:.0f}" if a in peaks else "-" for a in ("fp32", "fp16", "int8")]
        rows.append(cells)
    return rows


def _plain(table: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k}: {v}" for k, v in table.items())
