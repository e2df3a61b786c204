"""The command line: `edge-speech COMMAND …`. One subcommand is one file of edge_speech/commands."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, NoReturn

from edge_speech.errors import CheckFailed, FellBack, InputError

COMMANDS = (
    "targets",
    "train",
    "plot",
    "prune",
    "import",
    "optimize",
    "transcribe",
    "eval",
    "compare",
    "keywords",
    "bench",
    "verify",
    "build-engine",
    "inspect",
    "pack",
    "lm",
    "data",
)
_FILES = {"import": "import_model", "build-engine": "build_engine"}  # what is no name of a module
EXIT_DONE, EXIT_CHECK_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Streaming speech recognition on devices: from a PyTorch CTC model to a bundle, and from a bundle to text.

  on the host     train ─▶ model.pt ─▶ optimize ─▶ bundle
  on the device   bundle ─▶ build-engine (TensorRT), transcribe, eval, keywords, bench, verify
"""
_EPILOG = """\
exit codes: 0 done, 1 a check failed, 2 bad input or usage (one line says what and why)
first steps: edge-speech targets; edge-speech optimize --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every ending is at most one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = _parse(argv)
    try:
        _run(args)
        return EXIT_DONE
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nothing may be flushed into it at exit
        return EXIT_DONE
    except KeyboardInterrupt:
        return _end("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        if args.debug:
            raise
        return _explain(error)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Like parse_args, but takes audio files after an option too, which argparse gives back unread."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    odd = [word for word in rest if word.startswith("-") and word != "-"]
    audio = getattr(args, "audio", None)
    if odd or (rest and not isinstance(audio, list)):
        parser.error(f"{args.command} does not know {' '.join(odd or rest)}")
    if isinstance(audio, list):
        audio += rest
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="edge-speech",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-speech {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in COMMANDS:
        module = importlib.import_module(f"edge_speech.commands.{_FILES.get(name, name)}")
        _add_command(commands, name, module)
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _add_command(commands: argparse._SubParsersAction[_Parser], name: str, module: ModuleType) -> None:
    examples = "examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES.splitlines())
    parser = commands.add_parser(
        name,
        help=module.SUMMARY,
        description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, words on stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(module=module)


def _run(args: argparse.Namespace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always", FellBack)
        warnings.showwarning = _warner(warnings.showwarning)
        document = args.module.run(args)
    if document is None:  # another process of the group says it
        return
    if args.json:
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        args.module.show(document, args)
    sys.stdout.flush()
    if hasattr(args.module, "check"):
        args.module.check(document, args)


def _warner(others: Callable[..., None]) -> Callable[..., None]:
    """Our own warnings in one line, `others` for the rest."""

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, FellBack):
            print(f"edge-speech: {message}", file=sys.stderr)
        else:
            others(message, category, *where)

    return show


def _explain(error: Exception) -> int:
    if isinstance(error, CheckFailed):
        return _end(str(error), EXIT_CHECK_FAILED)
    if isinstance(error, InputError):
        return _end(str(error), EXIT_BAD_INPUT)
    if isinstance(error, OSError) and error.strerror:
        return _end(f"{error.filename or 'a file'}: {error.strerror}", EXIT_BAD_INPUT)
    if isinstance(error, MemoryError):
        return _end(
            "not enough memory for this input; use a shorter recording or a smaller model", EXIT_BAD_INPUT
        )
    name = type(error).__name__
    return _end(f"unexpected {name}: {error}; this is our bug, --debug shows where", EXIT_CHECK_FAILED)


def _end(message: str, code: int) -> int:
    print(f"edge-speech: {' '.join(message.split())}", file=sys.stderr)
    return code


def _version() -> str:
    try:
        return version("edge-speech")
    except PackageNotFoundError:
        return "from a checkout"


if __name__ == "__main__":
    sys.exit(main())
