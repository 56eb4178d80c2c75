"""Piano rolls: pitch over time, with the motif marked; arcs of attention over them; players for pages.

Notes are rows of start and end in seconds, pitch, velocity.
"""

import base64
import io

import numpy as np
from matplotlib import collections, figure, patches

from attention_zoo.plots import theme

_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
_LONGEST = 600.0  # seconds that are drawn


def pitch_name(pitch: int) -> str:
  """60 is C4."""
  return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


@theme.styled
def roll_figure(notes, begins=0.0, title=""):
  """A matplotlib figure. begins: the second at which the continuation of a motif begins; 0: all of it is new."""
  fig = figure.Figure(figsize=(9, 3.2), layout="constrained")
  draw_roll(fig.subplots(), notes, begins, title)
  return fig


def draw_roll(axes, notes, begins=0.0, title=""):
  """Draws a piano roll: the motif in orange on a grey ground, what follows in blue; louder notes are darker."""
  notes = np.asarray(notes, np.float64).reshape(-1, 4)
  notes = notes[notes[:, 0] < _LONGEST]
  end = max(min(notes[:, 1].max(initial=1.0), _LONGEST), begins)
  low, high = (int(notes[:, 2].min()) - 2, int(notes[:, 2].max()) + 2) if len(notes) else (58, 74)
  if begins:
    axes.add_patch(patches.Rectangle((0, low - 1), begins, high - low + 2, color=theme.LIGHT["panel"], lw=0))
    axes.axvline(begins, color=theme.LIGHT["orange"], lw=1.2)
    axes.annotate(
      "motif", (begins, high + 0.4), ha="right", va="top", xytext=(-4, 0), textcoords="offset points",
      color=theme.LIGHT["orange"], fontsize=8,
    )  # fmt: skip
  for is_motif, colour in ((True, "orange"), (False, "blue")):
    some = notes[(notes[:, 0] < begins - 1e-6) == is_motif]
    boxes = [patches.Rectangle((start, pitch - 0.42), stop - start, 0.84) for start, stop, pitch, _ in some]
    shades = [(*_rgb(theme.LIGHT[colour]), 0.35 + 0.65 * velocity / 127) for velocity in some[:, 3]]
    axes.add_collection(collections.PatchCollection(boxes, facecolor=shades, lw=0))
  axes.set_xlim(0, end), axes.set_ylim(low - 1, high + 1)
  ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 in (0, 7)]
  axes.set_yticks(ticks, [pitch_name(pitch) for pitch in ticks])
  axes.set_xlabel("seconds"), axes.set_title(theme.drawable(title))


@theme.styled
def arcs_figure(notes, times, pitches, weights, queries, title="", most=12):
  """The attention of some events as arcs over the piano roll of all.

  times, pitches: of each event that is read, second and pitch (-1: it strikes no note). weights [heads, T, S]: how much
  event t takes from event s. queries: the events t that are drawn. Each head has a colour; of each event and head the
  `most` largest weights are drawn, the wider the larger.
  """
  weights = np.asarray(weights, np.float64)
  fig = figure.Figure(figsize=(9, 4.2), layout="constrained")
  axes = fig.subplots()
  draw_roll(axes, notes, title=title)
  at = _heights(np.asarray(pitches))
  top = axes.get_ylim()[1]
  for head, weights_TS in enumerate(weights):
    colour = theme.LIGHT[theme.SERIES[head % len(theme.SERIES)]]
    for t in queries:
      for s in np.argsort(weights_TS[t])[::-1][:most]:
        if s == t or weights_TS[t, s] < 0.01:
          continue
        bend = -0.25 - 0.02 * head
        axes.add_patch(
          patches.FancyArrowPatch(
            (times[t], at[t]), (times[s], at[s]), connectionstyle=f"arc3,rad={-bend}", arrowstyle="-", color=colour,
            lw=0.3 + 4 * weights_TS[t, s], alpha=0.75,
          )  # fmt: skip
        )
  for t in queries:
    axes.plot([times[t]], [at[t]], "o", color=theme.LIGHT["ink"], ms=4)
  axes.set_ylim(top=top + 3)
  return fig


def _heights(pitches):
  """The pitch at which an event is drawn: its own, or that of the note before it."""
  struck = np.maximum.accumulate(np.where(pitches >= 0, np.arange(len(pitches)), -1))
  known = pitches[pitches >= 0]
  return np.where(struck >= 0, pitches[np.maximum(struck, 0)], known[0] if len(known) else 60)


def _rgb(colour):
  return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def png(fig) -> bytes:
  """The figure as a PNG file."""
  buffer = io.BytesIO()
  fig.savefig(buffer, format="png", dpi=150)
  return buffer.getvalue()


def player(wav: bytes) -> str:
  """HTML that plays a WAV file, which it holds."""
  data = base64.b64encode(wav).decode()
  return f'<audio controls preload="metadata" style="width: 100%" src="data:audio/wav;base64,{data}"></audio>'


def listening(title, notes, begins, wav, note="") -> str:
  """HTML of one piece: a heading, its piano roll and a player."""
  svg = theme.inline_svg(roll_figure(notes, begins), f"piano roll of {title}")
  note = f'<p class="note">{theme.escape(note)}</p>' if note else ""
  return f"<h3>{theme.escape(title)}</h3>{note}{svg}{player(wav)}"


def comparison_page(title, rows, pieces, command="") -> str:
  """One self-contained page: a table of runs and, of each, the same motif continued.

  rows: (head, cells of each run). pieces: (title, notes, begins, wav), as `listening` takes them.
  """
  head, cells = rows
  body = f"<h1>{theme.escape(title)}</h1>" + (f"<pre>{theme.escape(command)}</pre>" if command else "")
  body += '<p class="note">The motif stands on grey, in orange; what each model adds to it is blue.</p>'
  body += theme.table(head, cells, "stack scores")
  return theme.page(title, body + "".join(f"<section>{listening(*piece)}</section>" for piece in pieces))
