"""The report: one HTML file that shows what a run did, with nothing outside it.

Facts and cards go into the page as JSON; its own script writes them as text, never as markup. The page's
policy lets it run its own style and script (by hash) and show pictures from data only: no network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any

import yaml

from cleanplate.pipeline.errors import StorageError
from cleanplate.pipeline.ledger import compactions, ledger, plan, statistics
from cleanplate.pipeline.ledger.facts import COVERAGE_EDGES, INDEX_ROWS, Facts, Named, chosen
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.sections import hidden_by
from cleanplate.pipeline.storage.connect import Store, open_store
from cleanplate.pipeline.ui import report_rows

_STYLES = ("base.css", "report.css")
_SCRIPTS = (
    *("elements.js", "slider.js", "theme.js", "charts.js", "tables.js"),
    *("gallery.js", "dialog.js", "report.js"),
)
"""Modules, each after those that it imports: in one file they need neither imports nor exports."""
_BINS = 40
_CLOCK_SLACK_S = 120.0
"""How far a file's time may lie from the time that it tells before it counts as copied."""


def page(
    output: Store,
    record: dict[str, Any],
    *,
    sample: int = 60,
    seed: int = 0,
    on_damage: Callable[[str], None] = lambda damage: None,
) -> str:
    """The report of a run as an HTML document.

    record: ledger.read_record(output). sample: rows shown with pictures, chosen by risk; seed: for the random
    ones among them. on_damage: called with what is wrong with each part that cannot be read. Raises StorageError
    when the output cannot be listed.
    """
    below = _root(record)
    facts = statistics.gather(output, below, sample, seed)
    for damage in facts.unreadable:
        on_damage(damage)
    picks = chosen(facts, sample)
    cards = list(report_rows.cards(output, picks, below))
    data = summary(output, record, facts) | {
        "seed": seed,
        "gallery": [card.fields for card in cards],
        "indexed": min(facts.rows, INDEX_ROWS),
    }
    blocks = [_block("data", data), _block("index", _columns(facts.index()))]
    blocks += [_block(f"pictures-{n}", card.pictures) for n, card in enumerate(cards)]
    return document(f"cleanplate report: {output.url}", blocks)


def summary(output: Store, record: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """Everything on the page but the pictures, as JSON types."""
    events = _events(output)
    planned = sum(unit.rows for n in plan.generations(output) for unit in plan.read_index(output, n))
    return {
        "output": output.url,
        "source": record.get("source", ""),
        "generated": provenance.now(),
        "started": record.get("started", ""),
        "rows": facts.rows,
        "planned": planned,
        "committed": sum(rows for _, _, rows in facts.committed),
        "statuses": dict(facts.statuses),
        "kinds": [{"kind": kind, **vars(count)} for kind, count in sorted(facts.kinds.items())],
        "coverage": {"edges": COVERAGE_EDGES, "counts": facts.coverage.tolist()},
        "sessions": sessions(output, facts, events),
        "recall": events.recall,
        "stages": facts.stage_ms,
        "left": [{"kind": k, "detector": d, **vars(left)} for (k, d), left in sorted(facts.left.items())],
        "causes": [
            {"status": status, "stage": stage, "kind": kind, **vars(cause)}
            for (status, stage, kind), cause in sorted(facts.causes.items(), key=lambda c: -c[1].images)
        ],
        "unreadable": facts.unreadable,
        "recipe": yaml.safe_dump(record.get("recipe", {}), sort_keys=False, allow_unicode=True),
        "remove": list((record.get("recipe") or {}).get("remove", ())),
        "hidden": hidden_by(facts.inpainters),
        "digest": record.get("recipe_digest", ""),
        "weights": record.get("weights", {}),
        "packages": record.get("packages", {}),
        "versions": dict(facts.versions),
        "inpainters": dict(facts.inpainters),
    }


def document(title: str, blocks: Iterable[str]) -> str:
    """The HTML around the data blocks, with its policy."""
    folder = resources.files("cleanplate.pipeline").joinpath("ui", "static")

    def text(name: str) -> str:
        return folder.joinpath(name).read_text("utf-8")

    style = "\n".join(text(name) for name in _STYLES)
    modules = "\n".join(re.sub(r"^import .*\n|^export ", "", text(name), flags=re.M) for name in _SCRIPTS)
    script = '"use strict";\n(() => {\n' + modules + "\n})();\n"
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(title),
        "STYLE": style,
        "DATA": "\n".join(blocks),
        "SCRIPT": script,
    }
    # One pass: what a part holds is never searched for the next one's mark.
    return re.sub(r"@@([A-Z]+)@@", lambda found: parts[found[1]], text("report.html"))


def _hash(text: str) -> str:
    """A Content-Security-Policy source for an inline block."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _block(name: str, data: Any) -> str:
    """Data as a script element that is not run. "<" is escaped, so nothing in the data can end the element."""
    body = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{body}</script>'


def _finite(value: Any) -> Any:
    """The value without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _columns(rows: list[Named]) -> dict[str, Any]:
    """The search index, a list per column; words that repeat are numbers into a list."""
    statuses = sorted({row.status for row in rows})
    causes = sorted({row.cause for row in rows if row.cause})
    at = {word: n for words in (statuses, causes) for n, word in enumerate(words)}
    return {
        "statuses": statuses,
        "causes": causes,
        "id": [row.image_id[:16] for row in rows],
        "name": [row.name for row in rows],
        "status": [at[row.status] for row in rows],
        "score": [row.score for row in rows],
        "coverage": [row.coverage for row in rows],
        "cause": [at[row.cause] if row.cause else -1 for row in rows],
    }


def _root(record: dict[str, Any]) -> str:
    """The uri that the names of the source's images begin with."""
    source = str(record.get("source") or "")
    return open_store(source).uri("").rstrip("/") + "/" if source else ""


# --- when what was committed ---


def sessions(output: Store, facts: Facts, events: _Events) -> list[dict[str, Any]]:
    """Each start of the command that committed rows, oldest first.

    run_id, started, seconds (null when it was stopped and nothing tells when), rows, complete, and bins of
    [seconds from the start, length, rows] where the listing tells when its parts were written.
    """
    parts = {item.key.rpartition("/")[2]: item.modified for item in output.list(ledger.PARTS)}
    parts |= {f"{unit}.parquet": place.written for unit, place in compactions.held(output).items()}
    out = []
    for run_id in sorted({run_id for run_id, _, _ in facts.committed}):
        started, ended = (events.times.get((run_id, name)) for name in ("started", "complete"))
        mine = [(parts.get(part), rows) for run, part, rows in facts.committed if run == run_id]
        times = sorted((at, rows) for at, rows in mine if at is not None)
        stamp = events.written.get(run_id)
        # A copy of the folder has the copy's times: then nothing is known of when parts were committed.
        genuine = started is not None and stamp is not None and abs(stamp - started) < _CLOCK_SLACK_S
        if not genuine or len(times) < len(mine):
            times = []
        end = ended if ended is not None else times[-1][0] if times else None
        seconds = max(0.001, end - started) if started is not None and end is not None else None
        out.append(
            {
                "run_id": run_id,
                "started": started,
                "seconds": seconds,
                "rows": sum(rows for _, rows in mine),
                "complete": ended is not None,
                "bins": _bins(times, started, seconds) if started is not None and seconds else [],
            }
        )
    return sorted(out, key=lambda session: (session["started"] or 0, session["run_id"]))


def _bins(times: list[tuple[float, int]], started: float, seconds: float) -> list[list[float]]:
    """[start, length, rows] in seconds. About three parts a bin, or the rate would jump between 0 and a part."""
    if not times:
        return []
    count = min(_BINS, max(1, len(times) // 3))
    rows = [0] * count
    for at, some in times:
        rows[min(count - 1, max(0, int((at - started) / seconds * count)))] += some
    return [[n * seconds / count, seconds / count, float(some)] for n, some in enumerate(rows)]


@dataclass
class _Events:
    """What the files in `events/` tell. times: (run_id, event) -> seconds since 1970. written: run_id -> when the
    store wrote the file of its start. recall: what the newest estimate says, see `_recall`."""

    times: dict[tuple[str, str], float] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    recall: list[dict[str, Any]] = field(default_factory=list)


def _events(output: Store) -> _Events:
    events = _Events()
    newest = 0.0
    for item in output.list("events"):
        try:
            body = json.loads(output.get(item.key))
            run_id, name = str(body["run_id"]), str(body["event"])
            at = datetime.fromisoformat(body["time"]).timestamp()
        except (ValueError, KeyError, TypeError, StorageError):
            continue  # A foreign or half-written file beside ours: the page does without its times.
        events.times[run_id, name] = at
        if name == "started" and item.modified is not None:
            events.written[run_id] = item.modified
        if (recall := _recall(body.get("recall"))) and at >= newest:
            events.recall, newest = recall, at
    return events


def _recall(estimates: Any) -> list[dict[str, Any]]:
    """The usable ones of an event's `recall`: a list of {kind, recall, low, high, images, method}, shares in 0..1,
    low and high the ends of a 95 % interval, images how many with the thing were looked at."""
    usable = []
    for one in estimates if isinstance(estimates, list) else ():
        try:
            shares = {name: float(one[name]) for name in ("recall", "low", "high")}
            images, method = int(one.get("images") or 0), str(one.get("method") or "")
            if 0 <= shares["low"] <= shares["recall"] <= shares["high"] <= 1:
                usable.append({"kind": str(one["kind"]), **shares, "images": images, "method": method})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # Not in the form above: as if it were not there.
    return usable
