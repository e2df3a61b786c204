"""The power mode of a Jetson: which clocks and cores it runs with, by its own tool `nvpmodel`.

https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/SD/PlatformPowerAndPerformance.html
"""

from __future__ import annotations

import re
import subprocess

from edge_speech.errors import InputError


def power_mode() -> tuple[str, str] | None:
    """Name and number of the mode, such as ("MAXN", "0"); None where there is no nvpmodel."""
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)\s*$", done.stdout)
    return (found.group(1), found.group(2)) if found else None


def require_power_mode(asked: str | None) -> str | None:
    """The mode's name; None where it is not known and none is asked for. Raises InputError on another."""
    found = power_mode()
    if asked is None or (found and asked in found):
        return found[0] if found else None
    if found is None:
        raise InputError(
            f"power mode {asked} is asked for, and no nvpmodel answers here; leave out --power-mode"
        )
    raise InputError(
        f"the board runs in power mode {found[0]} ({found[1]}), {asked} is asked for; kernels are timed "
        "in the mode they will run in, so change it first: `sudo nvpmodel -m NUMBER`"
    )
