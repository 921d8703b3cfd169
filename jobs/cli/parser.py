"""argparse with three changes: flags are not abbreviated, a wrong word gets a "did you mean", and examples keep a line
each in --help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from cleanplate.pipeline.errors import redacted
from cleanplate.pipeline.recipe.hints import did_you_mean


class Parser(argparse.ArgumentParser):
    """Subparsers are of this class too. An epilog "Example(s): cleanplate a   cleanplate b" becomes a block."""

    def __init__(self, **settings: Any) -> None:
        settings["epilog"] = _block(settings.get("epilog"))
        # An abbreviation that works today is another flag's, or none, once a flag is added.
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **settings})

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [name for parser in self.chosen(found) for name in parser._option_string_actions]
            flag = unknown[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(flag, names)}")
        return found

    def chosen(self, found: argparse.Namespace) -> Iterator[argparse.ArgumentParser]:
        """This parser, and those of the commands that were given."""
        parser: argparse.ArgumentParser | None = self
        while parser is not None:
            yield parser
            commands = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
            parser = commands.choices.get(str(getattr(found, commands.dest, None))) if commands else None

    def error(self, message: str) -> NoReturn:
        """One line, and where help is; argparse would print the whole usage before it."""
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            message += did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        self.exit(2, f"{self.prog}: {redacted(message)}\nSee {self.prog} --help\n")


def _block(epilog: str | None) -> str | None:
    """Examples a line each."""
    if epilog is None or not epilog.startswith("Example"):
        return epilog
    lines = [part.strip() for part in re.split(r"\s+(?=cleanplate )", epilog)[1:]]
    return "\n  ".join(["examples:" if len(lines) > 1 else "example:", *lines])


class _Formatter(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)
