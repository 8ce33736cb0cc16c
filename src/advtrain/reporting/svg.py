"""A drawn figure as part of a page."""

import re
from html import escape

from advtrain.reporting.panels import INK, PAPER


def inline_svg(svg: str, name: str, alt: str) -> str:
    """Make a drawn SVG part of a page, in the page's colours.

    Args:
        svg: the file's text.
        name: unique on the page; put before the drawing's ids, which would clash otherwise.
        alt: the text for those who do not see it.

    Returns:
        The `<svg>` element. Its ink and paper are the page's variables `--ink` and `--paper`;
        nothing is loaded from elsewhere.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    # The drawing's style sheet would reach the whole page.
    body = body.replace("*{", f"#{name} *{{")
    head, _, rest = body.partition(">")
    size = re.search(r'viewBox="([^"]+)"', head)
    if size is None:
        raise ValueError(f"figure {name}: expected an SVG with a viewBox, got {head[:200]}")
    # Never so small that its text cannot be read: on a narrow screen it scrolls.
    width = float(size[1].split()[2])
    return (
        f'<svg id="{name}" role="img" aria-label="{escape(alt)}" viewBox="{size[1]}" '
        f'style="max-width: {width:.0f}pt; min-width: {0.7 * width:.0f}pt">{rest.strip()}'
    )
