"""Commands with verbs: `edge-speech COMMAND VERB …`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_verb(
    verbs: argparse._SubParsersAction[Any],
    name: str,
    run_verb: Callable[[argparse.Namespace], dict[str, Any]],
    summary: str,
    *,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A verb's parser; the options of every command may stand after the verb too.

    `examples` are the command's; the verb's own begin as the verb is called.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = [f"  {x}" for x in examples.splitlines() if x.startswith(parser.prog)]
    parser.epilog = "\n".join(["examples:", *own])
    for option in ("--json", "--quiet", "--debug"):
        parser.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run_verb=run_verb)
    return parser
