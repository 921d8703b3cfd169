"""cleanplate completion SHELL: print a script that completes commands, flags and their words."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish", "tcsh")
_FOLDERS = ("source", "output", "photos", "out")
_FILES = ("recipe", "image", "checkpoint", "encoder", "export")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print a shell's completion script",
        description=f"{__doc__} It is static: completing runs nothing of cleanplate.",
        epilog='Examples: eval "$(cleanplate completion bash)"   # in ~/.bashrc '
        "cleanplate completion zsh > ~/.zfunc/_cleanplate "
        "cleanplate completion fish > ~/.config/fish/completions/cleanplate.fish",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The completion script of one of SHELLS."""
    import shtab

    from cleanplate.jobs.cli.app import parser

    top = parser()
    _tell_words(top, _words())
    return shtab.complete(top, shell)


def _words() -> dict[str, list[str]]:
    """flag or argument -> its words. They are checked by the recipe, not by argparse, which gets them here."""
    from cleanplate.jobs.cli.flags import MIRRORED, literals
    from cleanplate.models.weights.registry import known
    from cleanplate.pipeline.recipe import sections

    weights = known()
    lamas = sorted(name for name, w in weights.items() if w.kind == "lama")
    found = {flag: literals(key) or [] for flag, key in MIRRORED.items()}
    return {flag: words for flag, words in found.items() if words} | {
        "remove": [*sections.KINDS, *sections.PLURALS],
        "inpainter": [sections.AUTO, *lamas, *sections.CLASSIC_INPAINTERS],
        "faces": [*lamas, *sections.CLASSIC_INPAINTERS],
        "names": sorted(weights),
        "name": sorted(weights),
        "address": ["auto"],
    }


def _tell_words(parser: argparse.ArgumentParser, words: dict[str, list[str]]) -> None:
    """Give every action of a parser, and of the parsers below it, the words or the kind of file it takes."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _tell_words(below, words)
        elif action.choices is None and action.nargs != 0:
            if action.dest in words:
                action.choices = words[action.dest]
            elif action.dest in _FOLDERS and action.type is None:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.dest in (*_FILES, "out"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
