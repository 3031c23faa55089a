"""The report's plots as SVG, drawn by hand: nothing is loaded, and every colour is a variable of the page.

Colours alone never tell two series apart: each has dashes of its own, and a table stands beside.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from splitlearn.comparison.axes import Axis, axis_over, labels_of
from splitlearn.comparison.intervals import Interval
from splitlearn.comparison.report import Report
from splitlearn.comparison.run_files import RunResult
from splitlearn.comparison.summary import ModeSummary
from splitlearn.comparison.tables import interval, percent_interval, share_interval

NUM_COLOURS = 7
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 2")
_WIDTH = 680
_CURVES_HEIGHT = 340
_ROW_HEIGHT = 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 12, 48
_CHARACTER = 7.4  # width of one in the plots' font, at most
_MAX_LABEL = 24


@dataclass(frozen=True)
class Figure:
    """One plot.

    Attributes:
        title: Above it.
        svg: The drawing.
        caption: Below it.
    """

    title: str
    svg: str
    caption: str


def figures_of(report: Report) -> tuple[Figure, ...]:
    """Return the plots that have something to show."""
    if not report.summaries:
        return ()
    figures = [_losses(report)]
    if any(summary.difference is not None for summary in report.summaries):
        figures.append(_differences(report))
    if report.has_metric:
        figures.append(_metrics(report))
    if any(summary.curve for summary in report.summaries):
        figures.append(_curves(report))
    return tuple(figures)


def styles_of(summaries: Sequence[ModeSummary]) -> dict[str, int | None]:
    """Return the number of each mode's style; None for the silos alone, which share one."""
    numbers: dict[str, int | None] = {}
    for summary in summaries:
        is_alone = summary.mode.kind == "alone"
        taken = sum(number is not None for number in numbers.values())
        numbers[summary.mode.name] = None if is_alone else taken % NUM_COLOURS
    return numbers


def _losses(report: Report) -> Figure:
    return Figure(
        "Evaluation loss by mode",
        _intervals(
            report.summaries,
            centre=lambda summary: summary.eval_loss,
            points=lambda summary: [run.eval_loss for run in _runs(report, summary)],
            show=interval,
            title="Evaluation loss by mode, nats per token",
            axis_title="evaluation loss, nats per token (lower is better)",
        ),
        "The bar is the mean with its 95 % bootstrap interval; each dot is one seed.",
    )


def _differences(report: Report) -> Figure:
    reference = {run.seed: run.eval_loss for run in report.results if run.mode == "centralised"}
    compared = [
        summary
        for summary in report.summaries
        if summary.difference is not None and summary.mode.kind != "alone"
    ] or [summary for summary in report.summaries if summary.difference is not None]

    def points(summary: ModeSummary) -> list[float]:
        return [
            100 * (run.eval_loss - reference[run.seed]) / reference[run.seed]
            for run in _runs(report, summary)
            if run.seed in reference
        ]

    def centre(summary: ModeSummary) -> Interval:
        found = summary.difference
        assert found is not None, "only such modes are shown"
        return _hundredfold(found)

    return Figure(
        "Loss relative to centralised training",
        _intervals(
            compared,
            centre=centre,
            points=points,
            show=lambda found: percent_interval(_hundredth(found)),
            title="Evaluation loss relative to centralised training, per cent",
            axis_title="per cent above the centralised loss of the same seed",
            with_zero=True,
        ),
        "Right of the line: worse than centralised training of the same seed.",
    )


def _metrics(report: Report) -> Figure:
    return Figure(
        "Accuracy by mode",
        _intervals(
            report.summaries,
            centre=lambda summary: _hundredfold(summary.metric),
            points=lambda summary: [100 * run.metric for run in _runs(report, summary)],
            show=lambda found: share_interval(_hundredth(found)),
            title="Accuracy by mode, per cent",
            axis_title="accuracy, per cent (higher is better)",
        ),
        "Over all silos' held-out rows; mean with its 95 % bootstrap interval, a dot for each seed.",
    )


def _curves(report: Report) -> Figure:
    shown = [summary for summary in report.summaries if summary.curve]
    has_alone = any(summary.mode.kind == "alone" for summary in shown)
    return Figure(
        "Training loss",
        _curves_svg(shown, styles_of(report.summaries)),
        "Mean over seeds and over stretches of the run, along the share of the budget that is used up."
        + (
            " A silo alone is shown on its own rows, so its line says how well it learns these, not how "
            "well it does on the others'."
            if has_alone
            else ""
        ),
    )


def _intervals(
    summaries: Sequence[ModeSummary],
    *,
    centre: Callable[[ModeSummary], Interval],
    points: Callable[[ModeSummary], list[float]],
    show: Callable[[Interval], str],
    title: str,
    axis_title: str,
    with_zero: bool = False,
) -> str:
    """Draw a row per mode: its mean, its interval, its seeds."""
    names = [_short(summary.mode.name) for summary in summaries]
    left = 16 + _CHARACTER * max(map(len, names))
    height = _TOP + _ROW_HEIGHT * len(summaries) + _BOTTOM
    values = [value for summary in summaries for value in (*points(summary), *_ends(centre(summary)))]
    axis = axis_over(values, begin=left, end=_WIDTH - _RIGHT, with_zero=with_zero)
    floor = height - _BOTTOM
    parts = [*_vertical_grid(axis, floor=floor, title=axis_title)]
    if with_zero:
        parts.append(_line(axis.place(0), _TOP, axis.place(0), floor, kind="zero"))
    for index, summary in enumerate(summaries):
        y = _TOP + _ROW_HEIGHT * (index + 0.5)
        found = centre(summary)
        parts.append(f'<text class="name" x="{left - 10:.0f}" y="{y + 4:g}">{escape(names[index])}</text>')
        parts.extend(
            f'<circle class="seed" cx="{axis.place(v)}" cy="{y:g}" r="3.5"/>' for v in points(summary)
        )
        if found.low is not None and found.high is not None:
            parts.append(_line(axis.place(found.low), y, axis.place(found.high), y, kind="span"))
        mean = axis.place(found.mean)
        parts.append(_line(mean, y - 8, mean, y + 8, kind="mean"))
    told = "; ".join(f"{summary.mode.name} {show(centre(summary))}" for summary in summaries)
    return _svg(parts, height=height, title=title, description=told)


def _curves_svg(summaries: Sequence[ModeSummary], styles: dict[str, int | None]) -> str:
    floor, height = _CURVES_HEIGHT - _BOTTOM, _CURVES_HEIGHT
    x = Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
    y = axis_over((loss for s in summaries for _, loss in s.curve), begin=floor, end=_TOP)
    ticks = y.ticks()
    parts = [*_vertical_grid(x, floor=floor, title="share of the run")]
    for tick, label in zip(ticks, labels_of(ticks), strict=True):
        parts.append(_line(_LEFT, y.place(tick), _WIDTH - _RIGHT, y.place(tick), kind="grid"))
        parts.append(f'<text class="name" x="{_LEFT - 8}" y="{y.place(tick) + 4:g}">{label}</text>')
    middle = (_TOP + floor) / 2
    parts.append(
        f'<text class="axis" x="14" y="{middle:g}" transform="rotate(-90 14 {middle:g})">'
        "training loss, nats</text>"
    )
    # The silos alone first: they lie under the others.
    for summary in sorted(summaries, key=lambda summary: summary.mode.kind != "alone"):
        places = " ".join(f"{x.place(at)},{y.place(loss)}" for at, loss in summary.curve)
        parts.append(f'<polyline {_style(styles[summary.mode.name])} points="{places}"/>')
    told = "; ".join(f"{s.mode.name} from {s.curve[0][1]:.3f} to {s.curve[-1][1]:.3f}" for s in summaries)
    return _svg(parts, height=height, title="Training loss along the run, nats per token", description=told)


def swatch(style: int | None) -> str:
    """Return a short line in a series' style, for a legend."""
    return (
        '<svg class="swatch" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<polyline {_style(style)} points="1,5 33,5"/></svg>'
    )


def _style(number: int | None) -> str:
    if number is None:
        return 'class="curve lone"'
    dashes = f' stroke-dasharray="{_DASHES[number]}"' if _DASHES[number] else ""
    return f'class="curve c{number}"{dashes}'


def _vertical_grid(axis: Axis, *, floor: float, title: str) -> Iterator[str]:
    ticks = axis.ticks()
    for tick, label in zip(ticks, labels_of(ticks), strict=True):
        place = axis.place(tick)
        yield _line(place, _TOP, place, floor, kind="grid")
        yield f'<text class="tick" x="{place}" y="{floor + 18:g}">{label}</text>'
    yield f'<text class="axis" x="{(axis.begin + axis.end) / 2:g}" y="{floor + 38:g}">{escape(title)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _svg(parts: Sequence[str], *, height: float, title: str, description: str) -> str:
    return "\n".join(
        (
            f'<svg class="plot" role="img" viewBox="0 0 {_WIDTH} {height:g}" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            *parts,
            "</svg>",
        )
    )


def _runs(report: Report, summary: ModeSummary) -> list[RunResult]:
    return [run for run in report.results if run.mode == summary.mode.name]


def _ends(found: Interval) -> tuple[float, ...]:
    return tuple(value for value in (found.mean, found.low, found.high) if value is not None)


def _hundredfold(found: Interval) -> Interval:
    return _scaled(found, 100)


def _hundredth(found: Interval) -> Interval:
    return _scaled(found, 1 / 100)


def _scaled(found: Interval, factor: float) -> Interval:
    low = None if found.low is None else found.low * factor
    high = None if found.high is None else found.high * factor
    return Interval(found.mean * factor, low, high)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else name[: _MAX_LABEL - 1] + "…"
