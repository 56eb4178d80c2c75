"""How often people took enlarged images for real photographs, as published: CelebA, 8 x 8 to 32 x 32 pixels.

Parmar et al. 2018 (arXiv:1802.05751), table 3: people saw a photograph and an enlarged image beside each other and said
which one is from a camera. At 50 % nobody can tell them apart.
"""

from typing import NamedTuple


class Judged(NamedTuple):
  """fooled: in how many answers of 100 the image was taken for real. error: what is printed behind its ±.

  model, attention: how the system's config names it here; "" is any attention, temperature None any temperature.
  """

  system: str
  model: str
  attention: str
  temperature: float | None
  fooled: float
  error: float | None = None

  @property
  def name(self) -> str:
    return self.system + (f", temperature {self.temperature:g}" if self.temperature else "")

  @property
  def shown(self) -> str:
    return f"{self.fooled:g}" + (f" ± {self.error:g}" if self.error else "") + " %"


def _judged(system, model, attention, *figures):
  return [
    Judged(system, model, attention, temperature, *figure)
    for temperature, figure in zip((1.0, 0.9, 0.8), figures, strict=True)
  ]


TABLE = (
  Judged("ResNet", "resnet_sr", "", None, 4.0),
  Judged("srez GAN", "srez_gan", "", None, 8.5),
  *_judged("Pixel Recursive", "pixel_recursive_sr", "", (11.0,), (10.4,), (10.25,)),
  *_judged(
    "Image Transformer, local 1-D", "image_transformer_sr", "local", (35.94, 3.0), (33.5, 3.5), (29.6, 4.0)
  ),
  *_judged(
    "Image Transformer, local 2-D", "image_transformer_sr", "local_2d", (36.11, 2.5), (34.0, 3.5), (30.64, 4.0)
  ),
)  # fmt: skip


def row_of(model: str, attention: str, temperature: float) -> Judged | None:
  """The row of the table that a run of this config would be compared with; None where there is none."""
  for row in TABLE:
    if row.model == model and row.attention in ("", attention) and row.temperature in (None, temperature):
      return row
  return None
