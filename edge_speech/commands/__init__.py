"""Subcommands, one file each.

A file has `SUMMARY`, `EXAMPLES`, `add_arguments(parser)`, `run(args)` → the JSON document, and
`show(document, args)`, which prints it for people. It may have `check(document, args)`, which raises
CheckFailed when what was printed is bad.
"""
