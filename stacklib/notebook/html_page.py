"""What all pages share: head, font, and colours for light and dark screens. Nothing comes from a network."""

from __future__ import annotations

import html

__all__ = ["html_page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --faint: #5b6675; --ground: #fcfcfa; --soft: #eef0f3;
  --line: #ccd2da; --link: #0b5cad; --good: #1b6e3c; --bad: #b3261e; --bad-soft: #fbeceb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8f0; --faint: #9aa6b5; --ground: #12161d; --soft: #1c232d; --line: #39434f;
    --link: #7db8f0; --good: #74cf98; --bad: #ff9c94; --bad-soft: #3a2022 } }
body { margin: 1.5rem auto; padding: 0 1.2rem; font: 1rem/1.55 system-ui, sans-serif; color: var(--ink);
  background: var(--ground) }
a { color: var(--link) }
img { max-width: 100%; height: auto }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def html_page(title: str, body: str, style: str = "") -> str:
    """A whole page; `style` is what it has beyond the shared one, and `body` is HTML already."""
    return PAGE.format(title=html.escape(title), style=STYLE + style, body=body)
