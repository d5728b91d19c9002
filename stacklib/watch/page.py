"""The page of a night that goes on. It loads itself again, and all that it shows is in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from stacklib.notebook.page import render
from stacklib.utils.labels import counted
from stacklib.watch.record import Entry, percent

__all__ = ["Shown", "watch_page"]

#: Seconds after which a browser loads the page again.
REFRESH = 5
#: Integrations in the table, the latest ones.
ROWS = 12

TEMPLATE = """{% extends base %}
{% block style %}
body { max-width: 72rem }
h1 { font-size: 1.4rem; margin: 0 0 .2rem } p { margin: .3rem 0 } .faint { color: var(--faint) }
.state { font-weight: 600 } .failed { color: var(--bad); background: var(--bad-soft); padding: .6rem 1rem;
  border-left: 4px solid var(--bad); overflow-wrap: anywhere; white-space: pre-wrap }
.gain { font-size: 1.15rem; color: var(--good); margin: .8rem 0 }
table { border-collapse: collapse; margin-top: 1rem; font-size: .92rem }
th { text-align: left; border-bottom: 2px solid var(--line); padding: .3rem .7rem }
td { border-top: 1px solid var(--line); padding: .35rem .7rem }
.number { text-align: right; font-variant-numeric: tabular-nums }
img { display: block; margin: 1rem 0; border-radius: 3px }
{% endblock %}
{% block body %}
{% if shown.refresh %}<script>setTimeout(function () { location.reload() }, {{ 1000 * refresh }})</script>
<noscript><meta http-equiv="refresh" content="{{ refresh }}"></noscript>{% endif %}
<h1>{{ shown.title }}</h1>
<p class="faint">{{ shown.folder }}</p>
<p class="state">{{ shown.state }}</p>
{% if shown.error %}<p class="failed">{{ shown.error }}</p>{% endif %}
{% if latest %}
<p>{{ counted(latest.used, "frame") }} of {{ latest.frames }} used
{%- if latest.exposure %}, {{ "%.3g" | format(latest.exposure / 3600) }} h of exposure{% endif %}
{%- if latest.noise is not none %}; noise {{ "%.3g" | format(latest.noise) }} of that of one frame{% endif %}
{%- if latest.possible is not none %} (equal frames: {{ "%.3g" | format(latest.possible) }}){% endif %}.</p>
{% if latest.hour_in_words %}<p class="gain">{{ latest.hour_in_words }}</p>{% endif %}
{% endif %}
{% if shown.master %}<p>The master:
<a href="{{ shown.master | address }}">{{ shown.master }}</a></p>{% endif %}
{% if picture %}<img src="data:image/jpeg;base64,{{ picture }}" alt="The master, stretched for the screen">
{% endif %}
{% if plot %}<img src="data:image/png;base64,{{ plot }}"
  alt="Noise of the master against the number of frames">{% endif %}
{% if shown.waiting %}<p>Being written: {{ shown.waiting | join(", ") }}</p>{% endif %}
{% for name, why in shown.unreadable.items() %}<p>Not used, {{ name }}: {{ why }}</p>{% endfor %}
{% for note in shown.notes %}<p class="faint">Note: {{ note }}</p>{% endfor %}
{% if entries %}
<table><thead><tr><th>Time</th><th class="number">Frames</th><th class="number">Noise</th>
<th class="number">Another hour</th><th class="number">Seconds</th><th>Integrated</th></tr></thead><tbody>
{% for entry in entries %}
<tr><td>{{ entry.time.replace("T", " ") }}</td><td class="number">{{ entry.used }}</td>
<td class="number">{% if entry.noise is not none %}{{ "%.4f" | format(entry.noise) }}{% endif %}</td>
<td class="number">{% if entry.hour is not none %}{{ percent(entry.hour) }}{% endif %}</td>
<td class="number">{{ "%.1f" | format(entry.seconds) }}</td><td>{{ entry.how }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
<p class="faint">The picture is stretched for the screen; the master is linear. Noise: pixel-to-pixel standard
deviation relative to that of the reference frame, mean of the channels.</p>
{% endblock %}
"""


@dataclass
class Shown:
    """What is on the page. `picture` is a JPEG, `plot` a PNG; both may be empty."""

    title: str
    folder: str
    state: str = ""
    error: str = ""
    master: str = ""
    picture: bytes = b""
    plot: bytes = b""
    waiting: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refresh: bool = True


def watch_page(shown: Shown, entries: Sequence[Entry]) -> str:
    """Return the page as HTML, the latest integration first."""
    return render(
        TEMPLATE,
        title=shown.title,
        shown=shown,
        refresh=REFRESH,
        latest=entries[-1] if entries else None,
        entries=list(reversed(entries))[:ROWS],
        picture=base64.b64encode(shown.picture).decode(),
        plot=base64.b64encode(shown.plot).decode(),
        counted=counted,
        percent=percent,
    )
