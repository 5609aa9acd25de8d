"""HTML and SVG as text, where everything that is not markup already is escaped."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup: made by `tag` and `join` only."""

    __slots__ = ()


Child = str | float | None


def tag(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """``<name attributes>children</name>``.

    Children and attribute values are escaped unless they are Markup; None is left out. In attribute names a trailing
    underscore is dropped (``class_``) and the others become hyphens (``stroke_width``).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def void(name: str, **attributes: str | float | None) -> Markup:
    """An element that has no closing tag in HTML, such as ``img``."""
    return Markup(tag(name, **attributes).removesuffix(f"</{name}>"))


def join(*children: Child) -> Markup:
    """All children, one after the other, escaped unless they are Markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(text(child), quote=True)
            for child in children
            if child is not None
        )
    )


def text(value: str | float) -> str:
    """A value as written in a report: numbers without needless digits."""
    if isinstance(value, str):
        return str(value)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
