"""The page of a batch, made anew whenever something has happened, and the pictures on it."""

from __future__ import annotations

import contextlib
import html
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from stacklib.batch.summary import Row
from stacklib.errors import StacklibError
from stacklib.figures.screen import stretch
from stacklib.frames.frame_set import Frame
from stacklib.notebook.html_page import html_page
from stacklib.utils.atomic_files import new_file

__all__ = ["page", "save_thumbnail", "thumbnail"]

#: Widest and highest thumbnail, in pixels; the page shows it at about half of that.
THUMBNAIL = 360
#: Rows that are read at once for a thumbnail.
STRIP = 512

STYLE = """
body { max-width: 84rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem }
p { margin: .3rem 0 } .faint { color: var(--faint) }
.failures { margin: 1rem 0; padding: .7rem 1rem; background: var(--bad-soft);
  border-left: 4px solid var(--bad); overflow-wrap: anywhere }
.failures h2 { font-size: 1.05rem; margin: 0 0 .3rem; color: var(--bad) }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; font-size: .92rem }
th { text-align: left; font-weight: 600; border-bottom: 2px solid var(--line); padding: .3rem .7rem;
  vertical-align: bottom }
td { border-top: 1px solid var(--line); padding: .55rem .7rem; vertical-align: top }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.picture { width: 160px; padding-left: 0 }
img { display: block; width: 160px; max-height: 140px; object-fit: contain; border-radius: 3px }
.none { width: 158px; height: 60px; border: 1px dashed var(--line); border-radius: 3px }
.name { font-weight: 600 } .done { color: var(--good) } .failed { color: var(--bad); font-weight: 600 }
.words td { border-top: 0; padding-top: 0 } summary { cursor: pointer; color: var(--faint) }
details ul { margin: .3rem 0 0; padding-left: 1.1rem } details li { overflow-wrap: anywhere }
.links a { white-space: nowrap; display: block }
"""

BODY = """<h1>{title}</h1>
<p>{counts}</p>
<p class="faint">{folder}</p>
{failures}
<table>
<thead><tr><th class="picture">Master</th><th>Target</th><th class="number">Frames<br>used</th>
<th class="number">Rejected<br>low</th><th class="number">Rejected<br>high</th><th class="number">Noise</th>
<th class="number">SNR<br>gain</th><th>Report</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p class="faint">Rejected: of the samples of all used frames. Noise: standard deviation from pixel to pixel,
in the units of the frames, mean of the channels. SNR gain: noise of the reference frame over that of the
master; in brackets the square root of the number of frames, which equal frames would reach. Pictures are
stretched for the screen; the masters are linear.</p>
"""


def page(rows: Sequence[Row], root: Path) -> str:
    """The page as HTML; its links count from `root`."""
    title = f"Batch of {_count(len(rows), 'target')}"
    body = BODY.format(
        title=title,
        counts=_counts(rows),
        folder=html.escape(str(root)),
        failures=_failures(rows, root),
        rows="\n".join(_row(row, root) for row in rows),
    )
    return html_page(title, body, STYLE)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _counts(rows: Sequence[Row]) -> str:
    numbers = {s: sum(row.status == s for row in rows) for s in ("done", "failed", "running", "waiting")}
    words = [f"<span class='done'>{_count(numbers['done'], 'master')}</span>"]
    if numbers["failed"]:
        words.append(f"<span class='failed'>{numbers['failed']} failed</span>")
    words += [f"{numbers[status]} {status}" for status in ("running", "waiting") if numbers[status]]
    return ", ".join(words) + "."


def _failures(rows: Sequence[Row], root: Path) -> str:
    failed = [row for row in rows if row.error]
    if not failed:
        return ""
    # The folder of all of them stands above.
    errors = [html.escape(row.error.replace(f"{root}{os.sep}", "")) for row in failed]
    names = [html.escape(row.target.name) for row in failed]
    lines = [f"<p><b>{name}</b>: {error}</p>" for name, error in zip(names, errors, strict=True)]
    return "\n".join(["<div class='failures'>", "<h2>What failed</h2>", *lines, "</div>"])


def _row(row: Row, root: Path) -> str:
    """A line of numbers, and below it, where there is something to say, one of words."""
    used = f"{row.known['used']} of {row.known['frames']}" if row.known else f"{len(row.target.frames)}"
    equal = f"<span class='faint'>({1 / row.mean('expected_noise_ratio'):.2f})</span>"
    numbers = [
        used,
        *(
            _number(100 * row.mean(side), ".2f") + " %" * bool(row.known)
            for side in ("rejected_low", "rejected_high")
        ),
        _number(row.mean("noise"), ".3g"),
        f"{_number(row.gain, '.2f')} {equal * bool(row.known)}",
    ]
    words = _words(row)
    cells = [
        f"<td class='picture' rowspan='{1 + bool(words)}'>{_picture(row, root)}</td>",
        f"<td>{_name(row)}</td>",
        *(f"<td class='number'>{text}</td>" for text in numbers),
        f"<td class='links'>{''.join(_links(row, root))}</td>",
    ]
    below = f"\n<tr class='words'><td colspan='7'>{words}</td></tr>" if words else ""
    return f"<tr>{''.join(cells)}</tr>{below}"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _picture(row: Row, root: Path) -> str:
    if not (row.known and row.record.thumbnail and (row.target.output / row.record.thumbnail).is_file()):
        return "<div class='none'></div>"
    source = quote(row.path(row.record.thumbnail, root))
    return f"<img src='{source}' alt='The master of {html.escape(row.target.name, quote=True)}, stretched'>"


def _name(row: Row) -> str:
    t = row.target
    facts = [t.object, t.filter, f"{t.exposure:g} s" if t.exposure is not None else ""]
    if row.known:
        k = row.known
        facts.append(f"{k['width']} x {k['height']}{', colour' * (k['channels'] == 3)}")
    # No fact is broken into two lines, and no pair of limits.
    said = ", ".join(html.escape(fact).replace(" ", "&nbsp;") for fact in facts if fact)
    limits = html.escape(row.limits).replace(" / ", "&nbsp;/&nbsp;")
    rule = f"<br><span class='faint'>{limits}</span>" if limits else ""
    state = row.status if row.status != "done" else ""
    kind = "failed" if row.status == "failed" else "faint"
    state = f"<br><span class='{kind}'>{state}</span>" if state else ""
    return (
        f"<span class='name'>{html.escape(t.name)}</span><br><span class='faint'>{said}</span>{rule}{state}"
    )


def _words(row: Row) -> str:
    """Why limits were proposed, and what should be looked at."""
    words = f"<p class='faint'>Limits were proposed: {html.escape(row.advice)}</p>" if row.advice else ""
    if row.remarks:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in row.remarks)
        count = _count(len(row.remarks), "warning")
        words += f"<details><summary>{count}</summary><ul>{items}</ul></details>"
    return words


def _links(row: Row, root: Path) -> Iterator[str]:
    words = {"report": row.page, "numbers": row.report, "notebook": row.notebook, "folder": row.master}
    for word, name in words.items():
        if name:
            target = row.path(name, root)
            target = target.rpartition("/")[0] + "/" if word == "folder" else target
            yield f"<a href='{quote(target)}'>{word}</a>"


# pictures ----------------------------------------------------------------------------------------


def save_thumbnail(master: Path, mark: str = "") -> str:
    """Write the small picture of a master beside it, unless it is there; its name, or nothing.

    A page without a picture is better than a run that failed for it.
    """
    picture = master.with_name(f"{master.stem}_thumbnail.jpg")
    if not picture.exists():
        with contextlib.suppress(OSError, StacklibError), new_file(picture, mark) as temporary:
            temporary.write_bytes(thumbnail(master))
    return picture.name if picture.exists() else ""


def thumbnail(master: Path) -> bytes:
    """A small JPEG of an image, with a screen stretch; it is read in strips, whatever its size."""
    frame = Frame(master, quiet=True)
    side = max(1, -(-max(frame.width, frame.height) // THUMBNAIL))
    rows, columns = frame.height // side, frame.width // side
    small = np.empty((frame.channels, rows, columns), np.float32)
    step = max(1, STRIP // side)
    for channel in range(frame.channels):
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            strip = frame.read_rows(start * side, stop * side, channel)[:, : columns * side]
            blocks = strip.reshape(stop - start, side, columns, side)
            small[channel, start:stop] = blocks.mean(axis=(1, 3))
    frame.close()
    shown = np.rint(stretch(small) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=88)
    return stream.getvalue()
