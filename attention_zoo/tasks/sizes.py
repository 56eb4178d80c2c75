"""The table of model sizes of EECS 498, lecture 13 ("Scaling up Transformers"), with what the zoo counts beside it.

Printed figures are the lecture's, but for the heads of Transformer-Base, of which it says 6 and the paper 8. Counted is
the closed form of the zoo's own model at those sizes, which are those of its configs: Transformers with the paper's
37,000 pieces, BERT with 30,522 and the pooler, XLNet with 32,000, RoBERTa with 50,265, GPT-2 with 50,257, Megatron-LM
as GPT-2 with its vocabulary padded to 51,200 (from memory); heads of pretraining are not counted.
"""

import dataclasses
import html
import types
from typing import NamedTuple

from attention_zoo import models


class Size(NamedTuple):
  """printed: parameters by the lecture. data, training: "" where it says nothing. fields: of the zoo's model."""

  name: str
  layers: int
  width: int
  heads: int
  printed: str
  data: str
  training: str
  model: str = ""
  fields: dict = types.MappingProxyType({})

  @property
  def counted(self) -> int | None:
    """By the closed form of the zoo's model; None where it has none."""
    if not self.model:
      return None
    module = models.find(self.model)
    depth = self.width // self.heads
    sizes = {"d_model": self.width, "d_ff": 4 * self.width, "num_heads": self.heads, "d_k": depth, "d_v": depth}
    known = {field.name for field in dataclasses.fields(module.Config)}
    return module.parameter_count(
      module.Config(**{name: size for name, size in sizes.items() if name in known}, **self.fields)
    )


def _gpt2(layers, vocab_size=50_257):
  return "transformer_lm", {"vocab_size": vocab_size, "num_layers": layers, "max_length": 1024}


_TRANSFORMER = "transformer", {"vocab_size": 37_000}
_BERT = {"vocab_size": 30_522}
_ROBERTA = {"vocab_size": 50_265, "num_types": 1, "pooler": False}
_MEGATRON = 51_200

SIZES = (
  Size("Transformer-Base", 12, 512, 8, "65M", "", "8x P100 (12 hours)", *_TRANSFORMER),
  Size("Transformer-Large", 12, 1024, 16, "213M", "", "8x P100 (3.5 days)", *_TRANSFORMER),
  Size("BERT-Base", 12, 768, 12, "110M", "13 GB", "", "bert", _BERT),
  Size("BERT-Large", 24, 1024, 16, "340M", "13 GB", "", "bert", _BERT | {"num_layers": 24}),
  Size(
    "XLNet-Large", 24, 1024, 16, "~340M", "126 GB", "512x TPU-v3 (2.5 days)", "xlnet",
    {"vocab_size": 32_000, "num_layers": 24},
  ),
  Size("RoBERTa", 24, 1024, 16, "355M", "160 GB", "1024x V100 (1 day)", "bert", _ROBERTA | {"num_layers": 24}),
  Size("GPT-2", 12, 768, 12, "117M", "40 GB", "", *_gpt2(12)),
  Size("GPT-2", 24, 1024, 16, "345M", "40 GB", "", *_gpt2(24)),
  Size("GPT-2", 36, 1280, 20, "762M", "40 GB", "", *_gpt2(36)),
  Size("GPT-2", 48, 1600, 25, "1.5B", "40 GB", "", *_gpt2(48)),
  Size("Megatron-LM", 40, 1536, 16, "1.2B", "174 GB", "64x V100", *_gpt2(40, _MEGATRON)),
  Size("Megatron-LM", 54, 1920, 20, "2.5B", "174 GB", "128x V100", *_gpt2(54, _MEGATRON)),
  Size("Megatron-LM", 64, 2304, 24, "4.2B", "174 GB", "256x V100 (10 days)", *_gpt2(64, _MEGATRON)),
  Size("Megatron-LM", 72, 3072, 32, "8.3B", "174 GB", "512x V100 (9 days)", *_gpt2(72, _MEGATRON)),
)  # fmt: skip
HEAD = ("model", "layers", "width", "heads", "printed", "counted here", "data", "training")


class Sizes(tuple):
  """All of `SIZES`; shows itself as a table."""

  def rows(self) -> list[tuple[str, ...]]:
    return [
      (x.name, str(x.layers), f"{x.width:,}", str(x.heads), x.printed, f"{x.counted:,}" if x.model else "–", x.data,
       x.training)
      for x in self
    ]  # fmt: skip

  def __repr__(self):
    rows = [HEAD, *self.rows()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    side = lambda i: str.rjust if 1 <= i <= 5 else str.ljust
    return "\n".join("  ".join(side(i)(row[i], width) for i, width in enumerate(widths)).rstrip() for row in rows)

  def _repr_html_(self):
    from attention_zoo.plots import theme

    note = f'<p class="note">{html.escape(" ".join(__doc__.split()))}</p>'
    return theme.fragment(theme.table(HEAD, self.rows()) + note)


def comparison() -> str:
  """ELMo, GPT and BERT side by side, what each position sees in each, with as many layers as the zoo's models have
  by default (ELMo has two): a file of SVG."""
  from attention_zoo.plots import pretraining

  found = []
  for name, model, note in (
    ("ELMo", "elmo", "two stacks of LSTMs, one from each side,\ntrained by themselves, put together for a task"),
    ("GPT", "gpt", "a Transformer that sees what stands before,\ntuned as a whole"),
    ("BERT", "bert", "a Transformer that sees both sides at once,\ntuned as a whole"),
  ):
    layers = getattr(models.find(model).Config(vocab_size=1), "num_layers", None) if model in models.MODELS else 2
    sees = {"elmo": "both ways", "gpt": "left", "bert": "all"}[model]
    found.append(pretraining.Model(name, layers or 2, sees, note))
  return pretraining.svg(pretraining.comparison_figure(found))
