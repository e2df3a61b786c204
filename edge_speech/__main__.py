"""`python -m edge_speech` is `edge-speech`."""

import sys

from edge_speech.cli import main

sys.exit(main())
