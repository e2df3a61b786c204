"""onnxruntime for C++ on 64-bit Arm, from package registries: fetch_onnxruntime.py FOLDER

The library comes out of the Python wheel, in the version that is installed here. Its C header is not in there
and comes out of Debian's libonnxruntime-dev, trixie's where this Debian is older: the C API only grows, so an
older header fits. Leaves FOLDER/include and FOLDER/lib, as EDGE_SPEECH_ONNXRUNTIME wants them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

PLATFORM = "manylinux_2_28_aarch64"
HEADER_PACKAGE = "libonnxruntime-dev"
SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def fetch_library(work: Path, lib: Path) -> None:
    """libonnxruntime.so.X.Y.Z of the wheel, and the two links that a linker and a loader look for."""
    wanted = [
        "--no-deps",
        "--only-binary=:all:",
        "--platform",
        PLATFORM,
        f"onnxruntime=={version('onnxruntime')}",
    ]
    run(sys.executable, "-m", "pip", "download", "--quiet", *wanted, folder=work)
    lib.mkdir()
    with zipfile.ZipFile(next(work.glob("onnxruntime-*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if "/libonnxruntime.so." in name)
        library = lib / Path(member).name
        library.write_bytes(wheel.read(member))
    for link in ("libonnxruntime.so.1", "libonnxruntime.so"):
        (lib / link).symlink_to(library.name)


def fetch_header(work: Path, include: Path) -> None:
    """The headers of Debian's package, whichever architecture it is for."""
    options = [] if _offered_here(work) else _newer_debian(work)
    run("apt-get", *options, "download", HEADER_PACKAGE, folder=work)
    run("dpkg", "-x", str(next(work.glob(f"{HEADER_PACKAGE}_*.deb"))), "package", folder=work)
    header = next((work / "package").rglob("onnxruntime_c_api.h"))
    shutil.copytree(header.parent, include)


def _offered_here(work: Path) -> bool:
    return bool(run("apt-cache", "search", "--names-only", f"^{HEADER_PACKAGE}$", folder=work))


def _newer_debian(work: Path) -> list[str]:
    """apt's options for the configured Debian mirror with another suite, its lists fetched into `work`."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", folder=work)
    mirrors = [uri for uri in listed.split() if uri.rstrip("/").endswith("/debian")]
    if not mirrors:
        sys.exit(
            f"no Debian mirror is configured for apt; install {HEADER_PACKAGE} and copy its headers by hand"
        )
    source, lists = work / "newer.list", work / "lists"
    source.write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {SUITE} main\n", encoding="utf-8")
    (lists / "partial").mkdir(parents=True)
    options = {"sourcelist": source, "sourceparts": "-"}
    flags = [f"-oDir::Etc::{name}={value}" for name, value in options.items()]
    flags += [f"-oDir::State::Lists={lists}", f"-oDir::Cache={work}"]
    run("apt-get", *flags, "update", folder=work)
    return flags


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: fetch_onnxruntime.py FOLDER")
    target = Path(sys.argv[1]).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        result = work / "onnxruntime"
        result.mkdir()
        fetch_library(work, result / "lib")
        fetch_header(work, result / "include")
        shutil.rmtree(target, ignore_errors=True)
        result.rename(target)


if __name__ == "__main__":
    main()
