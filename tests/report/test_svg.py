from __future__ import annotations

from xml.etree import ElementTree

import pytest

from postclick.report.svg import clean

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10" height="20">'


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<a xlink:href="http://example.invalid"><text>x</text></a>',
        '<image xlink:href="http://example.invalid/x.png"/>',
        '<foreignObject><b xmlns="http://www.w3.org/1999/xhtml">x</b></foreignObject>',
        '<style>@import "http://example.invalid"</style>',
        '<rect onload="alert(1)" style="fill:url(http://example.invalid)" width="3"/>',
        '<rect fill="url(http://example.invalid/x)" width="3"/>',
        '<rect id="alert" clip-path="url(#alert)" width="3"/>',
        '<rect fill="URL( http://example.invalid/x)" width="3"/>',
    ],
)
def test_what_is_not_a_drawing_is_taken_away(hostile: str) -> None:
    found = clean(f"{HEAD}<g>{hostile}</g></svg>", "a chart")
    assert "example.invalid" not in found
    assert "alert" not in found
    assert "script" not in found


def test_a_drawing_keeps_its_marks_and_gets_a_name() -> None:
    text = (
        f'{HEAD}<g transform="translate(1.23456,2)"><text fill="var(--ink)">a &lt;b&gt; 0.65764</text><g></g></g></svg>'
    )
    found = clean(text, 'says "hello" <b>')
    root = ElementTree.fromstring(found)
    assert root.get("viewBox") == "0 0 10 20"
    assert root.get("aria-label") == 'says "hello" <b>'
    assert root.get("role") == "img"
    assert "translate(1.23,2)" in found
    assert 'fill="var(--ink)"' in found
    assert "a &lt;b&gt; 0.65764" in found  # a place is rounded, a number that is read is not
    assert len(list(root.iter())) == 3
