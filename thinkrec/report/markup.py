"""Elements of the page that needs no script. Text that is put into one is escaped; nothing in them is styled inline."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Content = Any  # a Markup, text or a number; None stands for nothing, an iterable for its parts


class Markup(str):
    """Text that is markup already."""


def element(tag: str, attributes: Mapping[str, object] | None = None, *children: Content) -> Markup:
    """An element; attributes that are None are left out."""
    pairs = (f' {name}="{html.escape(str(value))}"' for name, value in (attributes or {}).items() if value is not None)
    return Markup(f"<{tag}{''.join(pairs)}>{join(children)}</{tag}>")


def join(children: Iterable[Content]) -> Markup:
    """Children one after the other."""
    return Markup("".join(_text(child) for child in children))


def _text(child: Content) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return join(child)
    return html.escape(str(child))


def table(
    name: str, heads: Sequence[Content], rows: Iterable[Sequence[Content]], *, note: str = "", kind: str | None = None
) -> Markup:
    """A table that scrolls by itself where it is too wide; the first cell of a row is its head."""
    caption = element("caption", None, name, element("small", None, f" {note}") if note else None)
    head = element("tr", None, [element("th", {"scope": "col"}, each) for each in heads])
    body = [
        element("tr", None, element("th", {"scope": "row"}, first), [element("td", None, cell) for cell in cells])
        for first, *cells in rows
    ]
    inner = element("table", None, caption, element("thead", None, head), element("tbody", None, body))
    classes = f"scroll {kind}" if kind else "scroll"
    return element("div", {"class": classes, "role": "region", "aria-label": name, "tabindex": "0"}, inner)


def folded(summary: str, *children: Content) -> Markup:
    """What a reader opens."""
    return element("details", None, element("summary", None, summary), *children)


def spread(edges: tuple[float, float], value: float, low: float, high: float, kind: str) -> Markup:
    """A point and its interval on an axis between `edges`; an arrow where they lie beyond it."""
    left, right = edges

    def at(number: float) -> str:
        return f"{100 * min(max((number - left) / (right - left), 0.0), 1.0):.2f}%"

    parts = [element("line", {"class": "zero", "x1": at(0), "x2": at(0), "y1": 0, "y2": 24})]
    if left <= value <= right:
        parts += [
            element("line", {"class": "interval", "x1": at(low), "x2": at(high), "y1": 12, "y2": 12}),
            element("circle", {"cx": at(value), "cy": 12, "r": 4.5}),
        ]
    else:
        beyond = value > right
        arrow = element(
            "text", {"x": at(value), "y": 16, "text-anchor": "end" if beyond else "start"}, "▶" if beyond else "◀"
        )
        parts.append(arrow)
    return element("svg", {"class": f"spread {kind}", "height": 24, "aria-hidden": "true"}, parts)


def curve(title: str, series: Mapping[str, Sequence[float]]) -> Markup:
    """Small curves over epochs 1, 2, ...: one line for each of the series, its last value named."""
    width, height, left, right, top, bottom = 460, 200, 50, 90, 12, 26
    values = [value for points in series.values() for value in points]
    low, high = min(values), max(values)
    low, high = (low - 0.001, high + 0.001) if high - low < 0.002 else (low, high)
    longest = max(map(len, series.values()))

    def x(place: int) -> float:
        return round(left + (width - left - right) * (place / (longest - 1) if longest > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(top + (height - top - bottom) * (high - value) / (high - low), 1)

    marks = [low, (low + high) / 2, high]
    parts = [
        *(element("path", {"class": "grid", "d": f"M{left},{y(mark)}H{width - right}"}) for mark in marks),
        *(element("text", {"x": left - 6, "y": y(mark) + 4, "text-anchor": "end"}, f"{mark:.3f}") for mark in marks),
        *(
            element("text", {"x": x(place), "y": height - 8, "text-anchor": "middle"}, place + 1)
            for place in sorted({0, longest // 2, longest - 1})
        ),
    ]
    label_y = -math.inf
    for number, (name, points) in enumerate(sorted(series.items(), key=lambda pair: -pair[1][-1])):
        places = " ".join(f"{x(place)},{y(value)}" for place, value in enumerate(points))
        label_y = max(y(points[-1]) + 4, label_y + 14)  # labels keep off each other
        parts += [
            element("polyline", {"class": f"curve c{number}", "points": places}),
            *(
                element("circle", {"class": f"c{number}", "cx": x(place), "cy": y(value), "r": 3.5})
                for place, value in enumerate(points)
            ),
            element("text", {"x": x(len(points) - 1) + 8, "y": label_y}, name),
        ]
    drawing = element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title}, parts)
    return element("figure", None, element("figcaption", None, title), drawing)
