"""The paper the report is printed on: one HTML file with its style inside and nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple

Tone = Literal["good", "fair", "bad"]

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --panel: #f6f7f9; --ink: #1b2330; --faint: #667085; --line: #e3e7ed;
  --good: #0f8f6f; --fair: #b26a00; --bad: #c73535; --accent: #2f6fe4; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --panel: #1a2029; --ink: #e6eaf0; --faint: #97a2b3;
  --line: #2a323e; --good: #3ecf9f; --fair: #eaa94b; --bad: #f27878; --accent: #6ea2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
.over { color: var(--faint); font-size: .85rem; letter-spacing: .04em; margin: 0; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .1rem 0 1.4rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .3rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.6rem 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { color: var(--faint); }
.verdict { list-style: none; margin: 0; padding: 1.1rem 1.3rem; background: var(--panel); border-radius: .7rem; }
.verdict li { margin: .45rem 0; padding-left: 1.35rem; position: relative; }
.verdict li::before { content: ""; position: absolute; left: 0; top: .5em; width: .6rem; height: .6rem;
  border-radius: 50%; background: var(--tone); }
.verdict li:first-child { font-size: 1.15rem; font-weight: 600; line-height: 1.4; }
.good { --tone: var(--good); } .fair { --tone: var(--fair); } .bad { --tone: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1rem 0 0; }
.tile { border: 1px solid var(--line); border-radius: .7rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: .82rem; line-height: 1.35; display: block; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; height: auto; }
figure svg.wide { min-width: 40rem; }
.pair { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; align-items: center; }
.pair > figure { flex: 0 1 25rem; }
figure svg text { font-family: inherit !important; }
figcaption { color: var(--faint); font-size: .85rem; margin-top: .3rem; max-width: 46rem; }
.scroll { overflow-x: auto; }
.film { display: block; width: 100%; min-width: 44rem; image-rendering: pixelated; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .6rem 1.4rem; }
.grid figure { margin: .3rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--faint); white-space: nowrap; }
td { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; }
.absent { border: 1px dashed var(--line); border-radius: .7rem; padding: .7rem .9rem; color: var(--faint); }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .9em; overflow-wrap: anywhere; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


class Finding(NamedTuple):
    """One sentence of the verdict, in plain words."""

    tone: Tone
    text: str


class Tile(NamedTuple):
    """A number that deserves to be large, and what it is."""

    value: str
    label: str


def page(title: str, over: str, findings: Sequence[Finding], tiles: Sequence[Tile], sections: Iterable[str]) -> str:
    """The whole document. `over`: the small line above the title; `sections`: ready HTML."""
    verdict = "".join(f'<li class="{one.tone}">{escape(one.text)}</li>' for one in findings)
    numbers = "".join(f'<div class="tile"><b>{escape(x.value)}</b><span>{escape(x.label)}</span></div>' for x in tiles)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f'<p class="over">{escape(over)}</p><h1>{escape(title)}</h1>'
        f'<ul class="verdict">{verdict}</ul><div class="tiles">{numbers}</div>\n'
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


def section(title: str, lead: str, *parts: str) -> str:
    """A heading, a sentence on how to read what follows, and ready HTML."""
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{"".join(parts)}</section>'


def figure(picture: str, caption: str = "") -> str:
    """`picture`: ready SVG or an <img>."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{picture}</div>{below}</figure>'


def image(png: bytes, description: str) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode()
    return f'<img class="film" alt="{escape(description)}" src="data:image/png;base64,{data}">'


def absent(what: str, command: str) -> str:
    """Say that a part is missing and what makes it."""
    return f'<p class="absent">{escape(what)} <code>{escape(command)}</code></p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; every column but the first is set as numbers where `head` is given."""
    kind = ' class="number"' if head else ""
    titles = "".join(f"<th{kind if index else ''}>{escape(text)}</th>" for index, text in enumerate(head))
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td{kind}>{escape(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>{f"<tr>{titles}</tr>" if head else ""}{body}</table></div>'


def details(summary: str, *parts: str) -> str:
    """Ready HTML that is shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
