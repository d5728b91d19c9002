"""The page of a batch, rewritten whenever something has happened, and the thumbnails on it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stacklib.batch.summary import Row
from stacklib.figures.screen import read_binned, stretch
from stacklib.frames.frame_set import Frame
from stacklib.notebook.page import render
from stacklib.utils.atomic_files import new_file
from stacklib.utils.labels import counted

__all__ = ["page", "save_thumbnail", "thumbnail"]

#: Longest side of a thumbnail in pixels, about twice its size on the page.
THUMBNAIL = 360

TEMPLATE = """{% extends base %}
{% block style %}
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
{% endblock %}

{% block body %}
<h1>{{ title }}</h1>
<p><span class='done'>{{ counted(numbers.done, "master") }}</span>
{%- if numbers.failed %}, <span class='failed'>{{ numbers.failed }} failed</span>{% endif %}
{%- if numbers.running %}, {{ numbers.running }} running{% endif %}
{%- if numbers.waiting %}, {{ numbers.waiting }} waiting{% endif %}.</p>
<p class="faint">{{ root }}</p>
{% for note in notes %}<p>Note: {{ note }}</p>{% endfor %}
{% for row in rows if row.error %}
{% if loop.first %}
<div class='failures'>
<h2>Failed targets</h2>
{% endif %}
<p><b>{{ row.target.name }}</b>: {{ row.error.replace(root ~ sep, "") }}</p>
{% if loop.last %}
</div>
{% endif %}
{% endfor %}
<table>
<thead><tr><th class="picture">Master</th><th>Target</th><th class="number">Frames<br>used</th>
<th class="number">Rejected<br>low</th><th class="number">Rejected<br>high</th><th class="number">Noise</th>
<th class="number">SNR<br>gain</th><th>Report</th></tr></thead>
<tbody>
{% for row in rows %}
{% set words = row.advice or row.remarks %}
<tr><td class='picture' rowspan='{{ 2 if words else 1 }}'>
{%- if picture(row) %}<img src='{{ picture(row) | address }}' alt='Master of {{ row.target.name }}'>
{%- else %}<div class='none'></div>{% endif %}</td>
<td><span class='name'>{{ row.target.name }}</span><br><span class='faint'>{{ facts(row) }}</span>
{%- if row.limits %}<br><span class='faint'>{{ row.limits.replace(" / ", "\u00a0/\u00a0") }}</span>{% endif %}
{%- if row.status != "done" %}<br><span class='{{ row.status }} faint'>{{ row.status }}</span>{% endif %}</td>
<td class='number'>{% if row.known %}{{ row.known.used }} of {{ row.known.frames }}
{%- else %}{{ row.target.frames | length }}{% endif %}</td>
<td class='number'>{{ number(100 * row.mean("rejected_low"), ".2f") }}{% if row.known %} %{% endif %}</td>
<td class='number'>{{ number(100 * row.mean("rejected_high"), ".2f") }}{% if row.known %} %{% endif %}</td>
<td class='number'>{{ number(row.mean("noise"), ".3g") }}</td>
<td class='number'>{{ number(row.gain, ".2f") }}{% if row.known %}
 <span class='faint'>({{ number(1 / row.mean("expected_noise_ratio"), ".2f") }})</span>{% endif %}</td>
<td class='links'>
{%- for word, path in links(row) %}<a href='{{ path | address }}'>{{ word }}</a>{% endfor %}</td></tr>
{% if words %}
<tr class='words'><td colspan='7'>
{% if row.advice %}
<p class='faint'>Suggested limits: {{ row.advice }}</p>
{% endif %}
{% if row.remarks %}
<details><summary>{{ counted(row.remarks | length, "warning") }}</summary>
<ul>{% for text in row.remarks %}<li>{{ text }}</li>{% endfor %}</ul></details>
{% endif %}
</td></tr>
{% endif %}
{% endfor %}
</tbody>
</table>
<p class="faint">Rejected: percentage of the samples of all frames used. Noise: pixel-to-pixel standard
deviation in the units of the frames, mean of the channels. SNR gain: noise of the reference frame divided by
that of the master, for equal starlight if frames are matched by it; in brackets the square root of the number
of frames, the gain from equal frames. Pictures are stretched for the screen; the masters are linear.</p>
{% endblock %}
"""


def page(rows: Sequence[Row], root: Path, notes: Sequence[str] = ()) -> str:
    """Return the page of a batch as HTML, with links relative to `root`, and notes on the whole batch."""
    return render(
        TEMPLATE,
        title=f"Batch of {counted(len(rows), 'target')}",
        rows=rows,
        root=str(root),
        notes=notes,
        sep=os.sep,
        numbers={s: sum(row.status == s for row in rows) for s in ("done", "failed", "running", "waiting")},
        counted=counted,
        number=_number,
        facts=_facts,
        picture=lambda row: _picture(row, root),
        links=lambda row: _links(row, root),
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _picture(row: Row, root: Path) -> str:
    """Return the path of the thumbnail as seen from the page; empty if there is none."""
    name = row.record.thumbnail if row.known else ""
    return row.path(name, root) if name and (row.target.output / name).is_file() else ""


def _facts(row: Row) -> str:
    """Return object, filter, exposure and size; none of them is broken into two lines."""
    target, known = row.target, row.known
    facts = [target.object, target.filter, f"{target.exposure:g} s" if target.exposure is not None else ""]
    if known:
        facts.append(f"{known['width']} x {known['height']}{', color' * (known['channels'] == 3)}")
    return ", ".join(fact.replace(" ", "\u00a0") for fact in facts if fact)


def _links(row: Row, root: Path) -> Iterator[tuple[str, str]]:
    names = {"report": row.page, "numbers": row.report, "notebook": row.notebook, "folder": row.master}
    for word, name in names.items():
        if name:
            path = row.path(name, root)
            yield word, path.rpartition("/")[0] + "/" if word == "folder" else path


# thumbnails --------------------------------------------------------------------------------------


def save_thumbnail(master: Path, room: Path | None = None) -> str:
    """Write the thumbnail of a master beside it, unless it exists, by way of the work folder `room`.

    Return its name.
    """
    picture = master.with_name(f"{master.stem}_thumbnail.jpg")
    if not picture.exists():
        with new_file(picture, room) as temporary:
            temporary.write_bytes(thumbnail(master))
    return picture.name


def thumbnail(master: Path) -> bytes:
    """Return an image as a small JPEG with a screen stretch. It is read in strips, whatever its size."""
    frame = Frame(master, quiet=True)
    side = max(1, -(-max(frame.width, frame.height) // THUMBNAIL))
    small = read_binned(frame, side)
    frame.close()
    shown = np.rint(stretch(small) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=88)
    return stream.getvalue()
