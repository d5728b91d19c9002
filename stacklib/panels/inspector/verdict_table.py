"""The verdicts on the samples of a pixel as an HTML table."""

from __future__ import annotations

from html import escape

from stacklib.explore.explain import PixelStory
from stacklib.explore.story_plots import SYMBOLS
from stacklib.kernel.verdicts import KEPT, NO_DATA
from stacklib.panels.common import safe_html
from stacklib.utils.texts import printable

__all__ = ["verdict_table"]

#: Heading of each column and its style; numbers never break.
COLUMNS = {
    "": "white-space:nowrap",
    "frame": "white-space:nowrap",
    "file": "white-space:nowrap;font-weight:normal",
    "raw": "white-space:nowrap",
    "compared": "white-space:nowrap",
    "verdict": "overflow-wrap:normal",
}


def verdict_table(story: PixelStory, number: int) -> str:
    """Write the verdict on every frame; rejected rows have a symbol, a word and bold type."""
    fates, rows = story.fates(number), []
    for i, (name, why) in enumerate(zip(story.files, story.reasons, strict=True)):
        now = int(fates[i])
        weight = "normal" if now in (KEPT, NO_DATA) else "bold"
        later = " (still kept in this round)" if now == KEPT != int(story.verdict[i]) else ""
        file = f'<span title="{escape(printable(name))}">{safe_html(story.labels[i])}</span>'
        cells = [SYMBOLS[now], str(story.numbers[i]), file]
        cells += [f"{story.raw[i]:.6g}", f"{story.compared[i]:.6g}", safe_html(why + later)]
        row = "".join(_cell("td", cell, style) for cell, style in zip(cells, COLUMNS.values(), strict=True))
        rows.append(f'<tr style="font-weight:{weight}">{row}</tr>')
    head = "".join(_cell('th scope="col"', word, style) for word, style in COLUMNS.items())
    left_out = "".join(f"<div>Left out: {safe_html(text)}</div>" for text in story.excluded)
    return (
        '<div style="max-height:245px;overflow:auto;line-height:1.45" tabindex="0" aria-label="verdicts">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{left_out}</div>"
    )


def _cell(tag: str, text: str, style: str) -> str:
    return f'<{tag} style="padding:0 .5em;text-align:left;{style}">{text}</{tag.split()[0]}>'
