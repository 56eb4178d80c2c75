"""A matplotlib figure that a notebook shows, whichever backend it has."""

import io

from attention_zoo import files


class Picture:
  """figure: the matplotlib figure."""

  def __init__(self, figure):
    self.figure = figure

  def _repr_png_(self) -> bytes:
    buffer = io.BytesIO()
    self.figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

  def save(self, path) -> None:
    """Writes the picture; the format is what the name ends with: png, svg, pdf."""
    buffer = io.BytesIO()
    self.figure.savefig(buffer, format=str(path).rpartition(".")[2].lower())
    files.write_bytes(files.expand(path), buffer.getvalue())

  def __repr__(self):
    width, height = self.figure.get_size_inches()
    return f"<Picture, {width:.1f} x {height:.1f} inches: a notebook shows it, save(path) writes it>"
