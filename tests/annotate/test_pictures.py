"""Pictures are well-formed SVG without inline styles, and text in them is escaped."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from annotate.templatetags import pictures
from training.templatetags.curves import curve

DRAWN = {
    "interval": pictures.interval_picture(0.6, 0.5, 0.7, 0, 1, "0.667 0.8", "α"),
    "no interval": pictures.interval_picture(-0.2, None, None, 0, 1),
    "bar": pictures.bar_picture(3.0, 4.0),
    "empty bar": pictures.bar_picture(None, 0),
    "heat": pictures.heat_map(["<b>", "y"], {("<b>", "y"): (0.9, 4)}),
    "histogram": pictures.histogram([0, 5], [0, 3], [2, 1]),
    "empty histogram": pictures.histogram([0], [0], [0]),
    "curve": curve([(1, 0.5), (2, -0.5), (3, 0.0)]),
    "flat curve": curve([(1, 0.0), (1, 0.0)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_svg_that_the_policy_allows(name: str) -> None:
    tree = ElementTree.fromstring(str(DRAWN[name]))  # noqa: S314 - drawn by us a line above
    assert tree.tag == "svg"
    for element in tree.iter():
        assert "style" not in element.attrib
        assert not any(key.startswith("on") for key in element.attrib)
        for value in element.attrib.values():
            assert "nan" not in value


def test_the_interval_stands_where_its_numbers_are() -> None:
    tree = ElementTree.fromstring(str(DRAWN["interval"]))  # noqa: S314 - drawn by us
    band = next(e for e in tree.iter("rect") if e.get("class") == "band")
    mark = next(tree.iter("circle"))
    # 14 to 306 is 0 to 1: 0.5 is 160.0, 0.6 is 189.2, and 0.2 is 58.4 wide.
    assert (band.get("x"), band.get("width"), mark.get("cx")) == ("160.0", "58.4", "189.2")


def test_names_with_the_same_beginning_stay_apart() -> None:
    short = {pictures.shortened(f"pandalm:annotator{n}") for n in range(3)}
    assert len(short) == 3
