"""From a chart to an SVG that can stand inside a page: known elements and attributes alone, colours of the page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

__all__ = ["clean", "rendered"]

_SPACE = "{http://www.w3.org/2000/svg}"
_ELEMENTS = {"svg", "g", "path", "line", "rect", "text", "tspan", "circle"}
_ATTRIBUTES = {
    *("d", "x", "y", "x1", "y1", "x2", "y2", "dx", "dy", "cx", "cy", "r", "width", "height", "transform", "viewBox"),
    *("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap"),
    *("stroke-linejoin", "stroke-miterlimit", "opacity", "text-anchor", "font-size", "font-weight", "font-style"),
    "display",
}
_LONG = re.compile(r"-?\d+\.\d{3,}(?![\d%])")
_URL = re.compile(r"url\(", re.IGNORECASE)


def rendered(chart: Any, label: str) -> str:
    """Return a chart of Altair as an SVG for the page, with `label` for those who do not see it.

    The form is rendered to text here and now by Vega in vl-convert; nothing of it runs in the reader's browser.
    """
    import vl_convert

    return clean(vl_convert.vegalite_to_svg(chart.to_dict()), label)


def clean(text: str, label: str) -> str:
    """Return an SVG with elements and attributes of a short list, no scripts, links, styles, ids or references."""
    ElementTree.register_namespace("", _SPACE[1:-1])
    root = ElementTree.fromstring(text)
    _strip(root)
    width, height = root.attrib.pop("width", "0"), root.attrib.pop("height", "0")
    root.set("viewBox", root.get("viewBox", f"0 0 {width} {height}"))
    root.set("role", "img")
    root.set("aria-label", label)
    for child in list(root):
        _flatten(root, child)
    return ElementTree.tostring(root, encoding="unicode")


def _flatten(parent: ElementTree.Element, element: ElementTree.Element) -> None:
    """Take away groups that hold nothing, and put what a group without attributes holds in its place."""
    for child in list(element):
        _flatten(element, child)
    if element.tag != f"{_SPACE}g" or (element.attrib and len(element)):
        return
    place = list(parent).index(element)
    parent.remove(element)
    for offset, child in enumerate(list(element)):
        parent.insert(place + offset, child)


def _strip(element: ElementTree.Element) -> None:
    """Take away what is not on the lists, and the frames that Vega draws around nothing."""
    for name in list(element.attrib):
        value = element.attrib[name]
        if name not in _ATTRIBUTES or _URL.search(value):
            del element.attrib[name]
        else:  # a hundredth of a pixel is finer than any screen
            element.set(name, _LONG.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value))
    for child in list(element):
        if child.tag.removeprefix(_SPACE) not in _ELEMENTS or _invisible(child):
            element.remove(child)
        else:
            _strip(child)


def _invisible(element: ElementTree.Element) -> bool:
    if element.get("display") == "none":
        return True
    return element.tag == f"{_SPACE}path" and element.get("d", "") in ("", "M0,0h0v0h0Z")
