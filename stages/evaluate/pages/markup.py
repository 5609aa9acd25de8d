"""SVG and HTML as text, where everything that is not markup already is escaped."""

from __future__ import annotations

from markupsafe import Markup, escape

Child = str | float | None


def tag(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """``<name attributes>children</name>``.

    Children and attribute values are escaped unless they are Markup; None is left out. In attribute names a trailing
    underscore is dropped (``class_``) and the others become hyphens (``stroke_width``).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")  # noqa: S704 - all parts are escaped


def figure(name: str, *children: Child, is_titled: bool = True, **attributes: str | float | None) -> Markup:
    """An SVG that readers of the page know as ``name``, its title too where it ``is_titled``."""
    title = tag("title", name) if is_titled else None
    return tag("svg", title, *children, **attributes, role="img", aria_label=name)


def join(*children: Child) -> Markup:
    """All children, one after the other, escaped unless they are Markup."""
    return Markup().join(_text(child) for child in children if child is not None)


def _text(value: str | float) -> str:
    """A value as written in a report: numbers without needless digits."""
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
