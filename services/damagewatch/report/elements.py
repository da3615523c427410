"""HTML and SVG as trees: what comes from outside is made harmless here and by the serialiser, not by care."""

from __future__ import annotations

from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | None

LONGEST_NAME = 160


def element(tag: str, *children: Child, **attributes: str | float) -> Element:
    """One element. `class_` and `for_` lose their underscore, other underscores become hyphens.

    Control characters, and those that turn the reading order, become U+FFFD in all text and attributes.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): _text(v) for name, v in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif child is not None and last is None:
            made.text = (made.text or "") + _text(child)
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + _text(child)
    return made


def serialise(tree: Element) -> str:
    """HTML 5."""
    return ElementTree.tostring(tree, encoding="unicode", method="html")


def short(name: str) -> str:
    """A name from outside, not endless."""
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"


def _text(value: str | float) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}"
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
