"""How the HTML pages are rendered: one way for all, each with its style inside."""

from pathlib import Path

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: Path, **values: object) -> str:
    """Render a page, escaping what it is given; a name that it is not given is an error.

    Args:
        template: its file; the templates that it includes lie beside it.
        values: by the names that the template has for them.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**values)


def inlined(name: str) -> Markup:
    """Return a file beside the templates (a style, a script) as it stands, to be part of a page."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
