"""An audit as one HTML page with nothing outside it, without pictures and script. Every text is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

NAMES = {
    "face": "faces",
    "plate": "licence plates",
    "person": "persons",
    "code": "QR and bar codes",
    "gps": "a GPS position in the metadata",
    "serial": "serial numbers in the metadata",
    "owner": "owner names in the metadata",
    "thumbnail": "a thumbnail in the metadata",
}
"""What an audit counts, for people; a kind that is not here is called by its word."""
_STYLE = """
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; background: var(--card); box-shadow: var(--shadow); }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: normal; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
td.long { overflow-wrap: anywhere; }
.holds { color: var(--failed); font-weight: 600; }
p.soft { color: var(--soft); }
"""
COMPARED = {
    "still": "what was in the source is found again",
    "appeared": "something is found that was not in the source",
    "changed": "pixels changed away from what was found",
    "resized": "another size than the source",
    "missing": "images of the source that are not there",
    "extra": "images that the source does not have",
    "lost": "ICC profile, EXIF, XMP or IPTC lost",
}


def page(body: dict[str, Any]) -> str:
    """The page of an audit's JSON (audit.json)."""
    parts = [
        f"<h1>What is {'left ' if 'against' in body else ''}in {escape(body['source'])}</h1>",
        f'<p class="soft">{escape(body["time"])} · {counted(body["images"])}, {body["failed"]:,} could not be read · '
        f"looked for {escape(', '.join(body['remove']))} · {escape(body['version'])}</p>",
        *_conditions(body["fail_on"]),
        "<h2>Exposure</h2>",
        _table(
            ("images with", "images", "share", ""),
            [_exposed(row, body["images"]) for row in exposure_rows(body)],
        ),
        "<h2>Findings</h2>",
        _table(
            (
                "kind",
                "found",
                "images",
                "shorter side, px",
                "score",
                *(name.replace(" px and more", " px +") for name in body["kinds"][0]["sizes"]),
            ),
            [_cells(kind_row(kind)) for kind in body["kinds"]],
        ),
        *_against(body.get("against")),
        *(_failed(body["causes"]) if body["causes"] else []),
        '<p class="soft">What no detector saw is not counted. findings.jsonl beside this page names every image.</p>',
    ]
    base = resources.files("cleanplate.pipeline").joinpath("ui", "static", "base.css").read_text("utf-8")
    style = base + _STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>cleanplate audit: {escape(body['source'])}</title><style>{style}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def counted(images: int) -> str:
    """ "1 image", "1,200 images"."""
    return f"{images:,} image{'s' * (images != 1)}"


def exposure_rows(body: dict[str, Any]) -> list[tuple[str, int]]:
    """(what, images with it), for people."""
    text = "personal text" if body["text_only"] else "text"
    return [(NAMES.get(word, text if word == "text" else word), n) for word, n in body["exposure"].items()]


def kind_row(kind: dict[str, Any]) -> tuple[str, ...]:
    """A kind of audit.json: its word, findings, images, sides, scores, and findings by class of size."""
    return (
        kind["kind"],
        f"{kind['found']:,}",
        f"{kind['images']:,}",
        _spread(kind["side_px"], ".0f"),
        _spread(kind["score"], ".2f"),
        *(f"{count:,}" for count in kind["sizes"].values()),
    )


def _spread(values: dict[str, float] | None, form: str) -> str:
    """Median (smallest to largest)."""
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})" if values else "-"


def against_title(against: dict[str, Any]) -> str:
    """How many pairs, and what of the source's findings is not found again."""
    gone = ", ".join(f"{count:,} {kind}" for kind, count in against["not_found_again_by_kind"].items())
    return f"{against['pairs']:,} pairs of images compared; not found again: {gone or 'nothing'}"


def against_rows(against: dict[str, Any]) -> list[tuple[str, int, str]]:
    """(what, images, of which) of a comparison, for people."""
    which = {
        "still": against["still_by_kind"],
        "appeared": against["appeared_by_kind"],
        "lost": against["lost_by_block"],
    }
    rows = []
    for word, text in COMPARED.items():
        details = ", ".join(f"{count:,} {what}" for what, count in which.get(word, {}).items())
        rows.append((text, int(against[word]), details or ", ".join(against.get(f"{word}_names", [])[:3])))
    if against["columns_lost"]:
        rows.append(("columns lost", len(against["columns_lost"]), ", ".join(against["columns_lost"])))
    if against["other_files_lost"]:
        rows.append(("other files lost (labels, texts)", against["other_files_lost"], ""))
    return rows


def _against(against: dict[str, Any] | None) -> Iterable[str]:
    if against is None:
        return
    yield f"<h2>Against {escape(against['source'])}</h2><p>{escape(against_title(against))}</p>"
    rows = [
        f'<td>{escape(what)}</td><td class="n">{count:,}</td><td class="long">{escape(which)}</td>'
        for what, count, which in against_rows(against)
    ]
    yield _table(("what", "images", "of which"), rows)


def _failed(causes: dict[str, int]) -> Iterable[str]:
    yield "<h2>Could not be read</h2>"
    yield _table(("cause", "images"), [_cells((cause, f"{count:,}")) for cause, count in causes.items()])


def _conditions(conditions: Sequence[dict[str, Any]]) -> Iterable[str]:
    for one in conditions:
        kind, says = ("holds", "holds: this audit fails") if one["holds"] else ("", "does not hold")
        yield f'<p class="{kind}">{escape(one["condition"])}: {counted(one["images"])}, {says}</p>'


def _exposed(row: tuple[str, int], images: int) -> str:
    name, count = row
    share = count / images if images else 0.0
    bar = f'<meter min="0" max="1" value="{share:.4f}"></meter>'
    return f'<td>{escape(name)}</td><td class="n">{count:,}</td><td class="n">{share:.1%}</td><td>{bar}</td>'


def _cells(values: Sequence[str]) -> str:
    first, *others = (escape(value) for value in values)
    return f"<td>{first}</td>" + "".join(f'<td class="n">{value}</td>' for value in others)


def _table(header: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th{' class=n' if n else ''}>{escape(name)}</th>" for n, name in enumerate(header))
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
