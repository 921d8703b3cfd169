"""YAML as recipes need it: plain values, lists and mappings. No tags, and no aliases, since a few hundred bytes of
aliases unfold to gigabytes."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 1 << 20
"""Characters of a recipe, at most."""


class _Plain(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {mark.line + 1}: no aliases (*name); write the value again")
        return super().compose_node(parent, index)


def load(text: str) -> Any:
    """Raises yaml.YAMLError, for aliases, tags, too much nesting and too much text as well."""
    if len(text) > MOST:
        raise yaml.YAMLError(f"{len(text)} characters; {MOST} are the limit")
    try:
        return yaml.load(text, Loader=_Plain)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
