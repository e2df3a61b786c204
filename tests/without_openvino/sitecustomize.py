"""On PYTHONPATH: a Python in which OpenVINO is not installed."""

import sys

sys.modules["openvino"] = None  # type: ignore[assignment]
