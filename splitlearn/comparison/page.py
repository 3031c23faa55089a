"""The report as one HTML page that needs nothing else: no script, no font, no other file. Pure."""

from collections.abc import Iterator
from html import escape

from splitlearn.comparison.markdown import failure_sentences, heading
from splitlearn.comparison.plots import Figure, figures_of, styles_of, swatch
from splitlearn.comparison.report import Report
from splitlearn.comparison.tables import Table, tables_of

# Colours: near Okabe and Ito's, darker on the light page and lighter on the dark one, so that every line has
# a contrast of 3 to 1 with the ground.
_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f3f5f7; --bad: #b42318;
  --s0: #1b1f24; --s1: #0072b2; --s2: #c2500a; --s3: #00795a; --s4: #a3478b; --s5: #8a6d00; --s6: #2d7fb8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181d; --ink: #e6e9ed; --soft: #a0a9b4; --line: #3a424c; --band: #1d232a; --bad: #ff9b8e;
    --s0: #e6e9ed; --s1: #62b5ec; --s2: #f0944d; --s3: #43c79d; --s4: #dd92c8; --s5: #e0c04a; --s6: #9bcdf2;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p.note, figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; }
.failed { border-left: 4px solid var(--bad); padding: .25rem 1rem; background: var(--band); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 600; }
.ends { display: block; color: var(--soft); font-size: .85em; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom;
  min-width: 5.5rem; }
figure { margin: 0; }
.plot { display: block; width: 100%; min-width: 28rem; max-width: 48rem; height: auto; font-size: 13px; }
.plot text { fill: var(--ink); }
.plot .tick, .plot .axis { fill: var(--soft); text-anchor: middle; }
.plot .name { text-anchor: end; }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .zero { stroke: var(--soft); stroke-width: 1.5; }
.plot .seed { fill: var(--s1); fill-opacity: .4; }
.plot .span { stroke: var(--s1); stroke-width: 3; stroke-linecap: round; }
.plot .mean { stroke: var(--ink); stroke-width: 2.5; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.lone { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 3 3; }
.c0 { stroke: var(--s0); } .c1 { stroke: var(--s1); } .c2 { stroke: var(--s2); } .c3 { stroke: var(--s3); }
.c4 { stroke: var(--s4); } .c5 { stroke: var(--s5); } .c6 { stroke: var(--s6); }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0;
  margin: .5rem 0; font-size: .9rem; }
.swatch { vertical-align: middle; margin-right: .4rem; }
@media print { main { max-width: none; } .plot { min-width: 0; } }
"""
_CURVES = "Training loss"


def to_page(report: Report) -> str:
    """Return the whole report."""
    title = escape(f"{report.base.name}: training together, centrally, alone")
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{title}</h1>",
            f"<p>{escape(heading(report))}</p>",
            *(f'<p class="note">{escape(f"Note: {left_out}.")}</p>' for left_out in report.left_out),
            *_failures(report),
            *_sections(report),
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def _failures(report: Report) -> Iterator[str]:
    if report.failures:
        yield '<section class="failed">'
        count = len(report.failures)
        yield f"<p><strong>{count} of the runs failed</strong>; their numbers are missing below.</p>"
        yield "<ul>"
        yield from (f"<li>{escape(sentence)}</li>" for sentence in failure_sentences(report))
        yield "</ul>"
        yield "</section>"


def _sections(report: Report) -> Iterator[str]:
    for number, table in enumerate(tables_of(report)):
        yield from _table(table)
        if number == 0:
            for figure in figures_of(report):
                yield from _figure(figure, legend=_legend(report) if figure.title == _CURVES else "")


def _figure(figure: Figure, *, legend: str) -> Iterator[str]:
    yield "<section>"
    yield f"<h2>{escape(figure.title)}</h2>"
    yield f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(figure.title)}">'
    yield figure.svg
    yield f"</div>{legend}<figcaption>{escape(figure.caption)}</figcaption></figure>"
    yield "</section>"


def _legend(report: Report) -> str:
    entries = [
        f"<li>{swatch(style)}{escape(name)}</li>"
        for name, style in styles_of(report.summaries).items()
        if style is not None
    ]
    if len(entries) < len(report.summaries):
        entries.append(f"<li>{swatch(None)}each silo alone</li>")
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _table(table: Table) -> Iterator[str]:
    yield "<section>"
    yield f'<h2 id="{table.key}">{escape(table.title)}</h2>'
    yield f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{table.key}"><table>'
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for name, *cells in table.rows:
        shown = "".join(map(_cell, cells))
        yield f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    yield "</tbody></table></div>"
    yield f'<p class="note">{escape(table.note)}</p>'
    yield "</section>"


def _cell(text: str) -> str:
    """Put an interval below its mean: the table stays narrow."""
    mean, bracket, ends = text.partition(" [")
    below = f'<span class="ends">[{escape(ends)}</span>' if bracket else ""
    return f"<td>{escape(mean)} {below}</td>" if below else f"<td>{escape(mean)}</td>"
