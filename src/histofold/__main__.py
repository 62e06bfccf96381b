"""`python -m histofold VERB key=value …`: all verbs, also the ones without a script of their own."""

from __future__ import annotations

import sys

from histofold.cli import DEMO, main
from histofold.commands import COMMANDS


def entry(arguments: list[str]) -> int:
    """Run `VERB overrides…`; without a verb list them all. Gives the exit code."""
    verbs = [*COMMANDS, DEMO]
    if not arguments or arguments[0] in ("help", "-h", "--help"):
        for name, command in COMMANDS.items():
            print(f"{name:<10}{command.text}")
        print(f"{DEMO:<10}the whole way on the embedded sample, in a few minutes")
        return 0
    if arguments[0] not in verbs:
        print(f"histofold: {arguments[0]}: unknown verb; there are {', '.join(verbs)}", file=sys.stderr)
        return 2
    return main(arguments[0], arguments[1:])


if __name__ == "__main__":
    sys.exit(entry(sys.argv[1:]))
