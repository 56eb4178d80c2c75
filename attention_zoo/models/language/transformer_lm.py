"""A decoder-only Transformer language model: Liu et al. 2018 (arXiv:1801.10198),
with the defaults of GPT-2, Radford et al. 2019.

"Improving Language Understanding by Generative Pre-Training" (GPT, Radford et al. 2018) is residual="post",
norm_epsilon=1e-5, max_length=512; "Language Models are Unsupervised Multitask Learners" (GPT-2) is the defaults.

| what                | GPT-2                                | here                                                    |
|---------------------|--------------------------------------|---------------------------------------------------------|
| normalisation       | pre-LN and a closing one             | the same; "post": after each sub-layer, none at the end |
| biases, activation  | everywhere; GELU in its tanh form    | the same; bias=False: not in attention; others by name  |
| output              | the embedding's table, no bias       | the same; tied=False: its own table; output_bias=True   |
| positions           | learned                              | the same; "sinusoidal", "none"; or by self-attention    |
| self-attention      | scaled dot-product, causal           | the same; any causal ones of ops/ by name, in turns     |
| first values        | normal, 0.02; less before a residual | embeddings N(0, 1/d_model), kernels Glorot-uniform      |
| dropout rate        | exact                                | rounded to 1/65,536                                     |
| several texts a row | one after the other                  | the same, or kept apart by segment ids                  |

Letters beside the house's: M = J T, the T new positions of each of J beams in cached decoding (`ops/cache.py`).
"""

import dataclasses

import flax.linen as nn

from attention_zoo.layers import transformer as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits, with_bias, with_one
from attention_zoo.ops import cache as cache_lib
from attention_zoo.protocols import Decoding


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """GPT-2's smallest model, but for the vocabulary, which has 50,257 pieces there."""

  d_model: int = 768
  d_ff: int = 3072
  num_heads: int = 12
  attention_dropout: float = 0.1
  residual: str = "pre"
  norm_epsilon: float = 1e-5
  bias: bool = True
  activation: str = "gelu_tanh"
  scale_embedding: bool = False
  positions: str = "learned"
  num_layers: int = 12
  attention: str = "dot_product"  # any causal one that ops/variant.py finds; "a, b" take turns
  tied: bool = True  # whether the output has the embedding's table

  def stacks(self):
    return {"attention": layers.Layers(self.num_layers, self.attention, causal=True)}


BATCH = ("inputs", "segments", "positions")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters."""
  tables = layers.count_output(config) + (not config.tied) * config.vocab_size * config.d_model
  return tables + layers.count_positions(config) + layers.count_layers(config, config.stacks()["attention"])


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_layers=2, max_length=16, dropout=0.0)


class TransformerLM(nn.Module):
  """Decoder-only. Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    self.embedding = layers.Embedding(c)
    self.positions = layers.make_positions(c)
    self.decoder = layers.Stack(c, c.stacks()["attention"])
    if not c.tied:
      self.output = layers.Embedding(c)
    self.output_bias_V = self.param("output_bias_V", nn.initializers.zeros, (c.vocab_size,)) if c.output_bias else None
    self.dropout = Dropout(c.dropout)

  def embed(self, tokens, positions, length):
    """(embeddings with positions, what is added to the input of a later layer or None).
    length: bound of the positions."""
    x = self.positions(self.embedding(tokens), positions, length)
    return x, self.positions.signal(positions, length, x.dtype)

  def marks(self, tokens, positions):
    """What the attention of a model that is made of this one may know of the tokens (`ops/variant.py`); None: no more
    than it sees."""
    return None

  def hidden(self, batch, *, train=False):
    """The last layer's output BTD, which a 1 follows where the logits have a bias.

    batch: "inputs", "segments", "positions" BT; the inputs are the targets shifted right."""
    x_BTD, signal_BTD = self.embed(batch["inputs"], batch["positions"], batch["inputs"].shape[1])
    x_BTD, marks = self.dropout(x_BTD, train), self.marks(batch["inputs"], batch["positions"])
    x_BTD = self.decoder(x_BTD, batch["segments"], signal_BTD=signal_BTD, marks=marks, train=train)
    return with_one(x_BTD, self.output_bias_V)

  def logits(self, x_BTD):
    """Scores of all tokens, float32 BTV, of what `hidden` returns."""
    table_VD = (self.embedding if self.config.tied else self.output).table_VD
    return logits(self.config, x_BTD, with_bias(table_VD, self.output_bias_V))

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train))

  def step(self, tokens_BJT, t, cache, table_VD):
    """Feeds the tokens of positions t .. t + T - 1 to every hypothesis. Returns (logits_BJTV, cache)."""
    B, J, T = tokens_BJT.shape
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], t, T)
    read = layers.in_one_row(tokens_BJT, t)
    x_BMD, signal_BMD = self.embed(*read, ancestry_BJZ.shape[2])
    also = {"signal_BMD": signal_BMD, "marks": self.marks(*read)}
    x_BMD, kv = self.decoder.step(x_BMD, t, cache["layers"], ancestry_BJZ, **also)
    logits_BMV = logits(self.config, with_one(x_BMD, self.output_bias_V), table_VD)
    return logits_BMV.reshape(B, J, T, -1), {"layers": kv, "ancestry_BJZ": ancestry_BJZ}


Model = TransformerLM


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  table_VD = params["output" if "output" in params else "embedding"]["table_VD"]
  return with_bias(table_VD, params.get("output_bias_V"))


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of texts with nothing read yet, and an empty cache (`grow` gives it room).

  inputs: {"inputs": tokens [B, any]}, which says how many texts there are; the first step feeds them.
  Raises UserError if an attention cannot decode.
  """
  return decoding_of(TransformerLM(config), params, inputs, num_beams=num_beams)


def decoding_of(model: TransformerLM, params, inputs, *, num_beams) -> Decoding:
  """`decoding` of a model that may be made of this one."""
  config, table_VD = model.config, output_table(params).astype(model.config.matmul_dtype)

  def step(params, tokens_BJT, t, cache):
    return model.apply({"params": params}, tokens_BJT, t, cache, table_VD, method="step")

  return layers.make_decoding(config, config.stacks()["attention"], step, params, inputs["inputs"].shape[0], num_beams)
