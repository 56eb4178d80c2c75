"""The Transformer: "Attention Is All You Need", Vaswani et al. 2017 (arXiv:1706.03762v5).

Deviations and choices where the paper is silent:

| what              | the paper                     | here                                                             |
|-------------------|-------------------------------|------------------------------------------------------------------|
| normalisation     | post-LN (Figure 1, sec. 5.4)  | the same; residual="pre": sub-layer inputs and both outputs      |
| embeddings        | shared, times sqrt(d_model)   | the same; drawn with deviation d_model^-0.5                      |
| other kernels     | not stated                    | Glorot-uniform over the matrix [D, N K], as tensor2tensor        |
| biases            | in the feed-forward (eq. 2)   | the same; bias=True: in attention; output_bias=True: of logits   |
| vocabulary        | about 37,000 shared BPE       | exactly `vocab_size` rows, no padding                            |
| attention dropout | none in the published setting | `attention_dropout`, 0 by default                                |
| dropout rate      | exact                         | rounded to 1/65,536                                              |
| learned positions | one table (Table 3, row E)    | one table for the encoder, one for the decoder                   |
| self-attention    | scaled dot-product            | the same; others of ops/ by name in encoder_attention etc.       |
| activation        | ReLU (eq. 2)                  | the same; or activation="gelu", "gelu_tanh", "swish"             |
| feed-forward      | dense                         | the same; or "mixture_of_experts(..)", Shazeer et al. 2017       |
| packed rows       | one sentence pair a row       | segment ids keep the pairs of a row apart; same mathematics      |

Letters beside the house's: M = J T, the T new positions of each of J beams in cached decoding (`ops/cache.py`).
"""

import dataclasses

import flax.linen as nn

from attention_zoo.layers import transformer as layers
from attention_zoo.layers.dropout import Dropout
from attention_zoo.layers.linear import logits, with_bias, with_one
from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import masks
from attention_zoo.protocols import Decoding


@dataclasses.dataclass(frozen=True)
class Config(layers.Config):
  """The paper's hyperparameters under the paper's names; the defaults are the base model."""

  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  encoder_attention: str = "dot_product"  # self-attention, any that ops/variant.py finds; "a, b" take turns
  decoder_attention: str = "dot_product"

  def stacks(self):
    return {
      "encoder_attention": layers.Layers(self.num_encoder_layers, self.encoder_attention, causal=False),
      "decoder_attention": layers.Layers(self.num_decoder_layers, self.decoder_attention, causal=True, cross=True),
    }


BATCH = ("source", "source_segments", "source_positions", "inputs", "target_segments", "target_positions")


def parameter_count(config: Config) -> int:
  """The closed form of the number of parameters; tests hold every config against it."""
  stacks = sum(layers.count_layers(config, stack) for stack in config.stacks().values())
  return layers.count_output(config) + 2 * layers.count_positions(config) + stacks


def small() -> Config:
  """For tests."""
  return Config(
    vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_encoder_layers=1, num_decoder_layers=1,
    dropout=0.0,
  )  # fmt: skip


class Transformer(nn.Module):
  """Encoder-decoder. Tokens and segment ids are int32; segment 0 is padding; positions count within a segment."""

  config: Config

  def setup(self):
    c = self.config
    stacks = c.stacks()
    self.embedding = layers.Embedding(c)
    self.source_positions, self.target_positions = layers.make_positions(c), layers.make_positions(c)
    self.encoder = layers.Stack(c, stacks["encoder_attention"])
    self.decoder = layers.Stack(c, stacks["decoder_attention"])
    self.output_bias_V = self.param("output_bias_V", nn.initializers.zeros, (c.vocab_size,)) if c.output_bias else None
    self.dropout = Dropout(c.dropout)

  def embed(self, tokens, positions, side, length):
    """(embeddings with positions (section 3.4 and 3.5), what is added to the input of a later layer or None).

    length: static bound of the positions.
    """
    places = self.source_positions if side == "source" else self.target_positions
    x = places(self.embedding(tokens), positions, length)
    return x, places.signal(positions, length, x.dtype)

  def encode(self, source_BS, segments_BS, positions_BS, *, train=False):
    """Returns the memory BSD."""
    x_BSD, signal_BSD = self.embed(source_BS, positions_BS, "source", source_BS.shape[1])
    return self.encoder(self.dropout(x_BSD, train), segments_BS, signal_BTD=signal_BSD, train=train)

  def decode(self, memory_BSD, memory_segments_BS, inputs_BT, segments_BT, positions_BT, *, train=False):
    """inputs_BT: the targets shifted right. Returns the last layer's output BTD."""
    x_BTD, signal_BTD = self.embed(inputs_BT, positions_BT, "target", inputs_BT.shape[1])
    x_BTD = self.dropout(x_BTD, train)
    return self.decoder(x_BTD, segments_BT, memory_BSD, memory_segments_BS, signal_BTD=signal_BTD, train=train)

  def logits(self, x_BTD):
    """Of what `hidden` returns."""
    return logits(self.config, x_BTD, with_bias(self.embedding.table_VD, self.output_bias_V))

  def hidden(self, batch, *, train=False):
    """The decoder's output BTD for a batch of `data/batches.py`, which a 1 follows where the logits have a bias."""
    memory_BSD = self.encode(batch["source"], batch["source_segments"], batch["source_positions"], train=train)
    x_BTD = self.decode(
      memory_BSD, batch["source_segments"], batch["inputs"], batch["target_segments"], batch["target_positions"],
      train=train,
    )  # fmt: skip
    return with_one(x_BTD, self.output_bias_V)

  def __call__(self, batch, *, train=False):
    """Logits BTV (float32)."""
    return self.logits(self.hidden(batch, train=train))

  # Cached decoding: see `decoding`.

  def read(self, source_BS, segments_BS, positions_BS):
    """What the steps read: keys and values of the source for each decoder layer, their mask, and the output's table."""
    memory_BSD = self.encode(source_BS, segments_BS, positions_BS)
    return {
      "layers": [layer.cross_attention.keys_values(memory_BSD) for layer in self.decoder.blocks],
      "mask": masks.padding(segments_BS > 0),
      "table_VD": with_bias(self.embedding.table_VD, self.output_bias_V).astype(self.config.matmul_dtype),
    }

  def step(self, tokens_BJT, t, source, cache):
    """Feeds the tokens of positions t .. t + T - 1 (the first is BOS) to every hypothesis.
    Returns (logits_BJTV, cache).

    source: what `read` gave.
    """
    B, J, T = tokens_BJT.shape
    ancestry_BJZ = cache_lib.extend(cache["ancestry_BJZ"], t, T)
    x_BMD, signal_BMD = self.embed(*layers.in_one_row(tokens_BJT, t), "target", ancestry_BJZ.shape[2])
    x_BMD, kv = self.decoder.step(
      x_BMD, t, cache["layers"], ancestry_BJZ, source["layers"], source["mask"], signal_BMD=signal_BMD
    )
    logits_BMV = logits(self.config, with_one(x_BMD, self.output_bias_V), source["table_VD"])
    return logits_BMV.reshape(B, J, T, -1), {"layers": kv, "ancestry_BJZ": ancestry_BJZ}


Model = Transformer


def output_table(params):
  """The table_VD of the output, for losses that do not keep the logits (`training/loss.py`)."""
  return with_bias(params["embedding"]["table_VD"], params.get("output_bias_V"))


def decoding(config: Config, params, inputs, *, num_beams) -> Decoding:
  """The Decoding of a batch of sentences: encodes them, and has an empty cache (`grow` gives it room).

  inputs: "source", "source_segments", "source_positions" of `data/batches.py`, BS.
  Raises UserError if the decoder's attention cannot decode.
  """
  model = Transformer(config)
  source = [inputs[key] for key in ("source", "source_segments", "source_positions")]
  read = model.apply({"params": params}, *source, method="read")

  def step(params, tokens_BJT, t, cache):
    return model.apply({"params": params}, tokens_BJT, t, read, cache, method="step")

  return layers.make_decoding(config, config.stacks()["decoder_attention"], step, params, source[0].shape[0], num_beams)
