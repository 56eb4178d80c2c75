"""Relative attention in O(L D) rather than O(L^2 D) memory."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from attention_zoo.ops import masks, relative
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.plots.theme import LIGHT

TITLE = "Memory of relative attention: gathering (Shaw) and skewing (Music Transformer)"
SOURCE = (
  "CS224n 2019, lecture 14, and Huang et al. 2018: a layer's relative embeddings take 8.5 GB when gathered and 4.2 MB "
  "with skewing, at L = 2048, D = 512; their table 1 (the columns 650 and 3500 quoted from memory) adds the relative "
  "logits, for one head of 64. Measured: "
  "what the compiled layer holds (arguments and temporaries, by the compiler's memory analysis) beyond the same "
  "attention without relative positions; nothing is run."
)
HEAD = 64
# Huang et al. 2018, table 1: MB of embeddings + MB of logits.
TABLE = {650: ("108 + 1.7", "0.17 + 1.7"), 2048: ("1100 + 16", "0.52 + 16"), 3500: ("3100 + 49", "0.90 + 49")}


def measure(quick):
  L, heads = (128, 2) if quick else (2048, 8)
  D = heads * HEAD
  plain, gather, skew = _added_memory(L, heads)
  claimed = (None, None) if quick else ("8.5 GB", "4.2 MB")
  rows = [
    [
      f"gathered embeddings R, L = {L}, D = {D}",
      claimed[0],
      _bytes(4 * L * L * D),
      _bytes(gather["temporary"]),
    ],
    [
      f"the table E that skewing reads, L = {L}, D = {D}",
      claimed[1],
      _bytes(4 * L * D),
      _bytes(skew["argument"]),
    ],
    ["the relative logits that skewing keeps", None, _bytes(4 * L * L * heads), _bytes(skew["temporary"])],
  ]
  for L, cells in {128: (None, None)}.items() if quick else TABLE.items():
    _, gather, skew = _added_memory(L, 1)
    logits = 4 * L * L
    for name, cell, embeddings, got in (
      ("gathering", cells[0], 4 * L * L * HEAD, gather),
      ("skewing", cells[1], 4 * L * HEAD, skew),
    ):
      analytic = f"{embeddings / 1e6:.4g} + {logits / 1e6:.3g} MB"
      rows.append([f"one head, L = {L}, {name}", cell and f"{cell} MB", analytic, _bytes(sum(got.values()))])
  lengths = [64, 128] if quick else [256, 512, 1024, 2048, 4096, 8192]
  curves = {length: [sum(added.values()) for added in _added_memory(length, heads)[1:]] for length in lengths}
  return {"rows": rows, "heads": heads, "lengths": lengths, "gather": [curves[n][0] for n in lengths],
          "skew": [curves[n][1] for n in lengths]}  # fmt: skip


def draw(results):
  lengths, heads = np.array(results["lengths"], float), results["heads"]
  figure = Figure(figsize=(7, 4.4), layout="constrained")
  axes = figure.subplots()
  D = heads * HEAD
  curves = (
    ("gather", LIGHT["orange"], 4 * lengths**2 * (D + heads), "gathering: embeddings L² D + logits L² N"),
    ("skew", LIGHT["blue"], 4 * (lengths * D + lengths**2 * heads), "skewing: embeddings L D + logits L² N"),
  )
  for name, color, formula, label in curves:
    axes.loglog(lengths, formula, color=color, lw=1.5, label=label)
    axes.loglog(lengths, results[name], "o", color=color)
  axes.loglog(
    lengths, 4 * lengths * D, "--", color=LIGHT["blue"], lw=1.2, label="skewing, embeddings alone: L D"
  )
  axes.set_xticks(lengths, [f"{n:.0f}" for n in lengths])
  axes.minorticks_off()
  axes.set_yticks([1e6, 1e7, 1e8, 1e9, 1e10, 1e11], ["1 MB", "10 MB", "100 MB", "1 GB", "10 GB", "100 GB"])
  axes.set(xlabel=f"length L  (D = {D}, N = {heads} heads)", ylabel="memory that relative positions add")
  axes.legend(title="lines: formula; dots: the compiler's analysis")
  return figure


def _added_memory(L, heads):
  """Bytes of arguments and temporaries: (plain attention, what gathering adds, what skewing adds)."""
  mask = masks.causal(L)
  qkv = [jax.ShapeDtypeStruct((1, L, heads, HEAD), jnp.float32)] * 3
  # Causal attention uses L of the 2 L - 1 rows; gathering takes them all, for it knows of no mask.
  table = [jax.ShapeDtypeStruct((rows, heads, HEAD), jnp.float32) for rows in (2 * L - 1, L)]
  plain = _memory(lambda q, k, v: dot_product_attention(q, k, v, mask=mask), *qkv)
  gather = _memory(lambda q, k, v, e: relative.shaw_gather_attention(q, k, v, e, mask=mask), *qkv, table[0])
  skew = _memory(relative.music_attention, *qkv, table[1])
  return plain, *({part: more[part] - plain[part] for part in plain} for more in (gather, skew))


def _memory(function, *shapes):
  memory = jax.jit(function).lower(*shapes).compile().memory_analysis()
  return {"argument": memory.argument_size_in_bytes, "temporary": memory.temp_size_in_bytes}


def _bytes(count):
  return f"{count / 1e9:.3f} GB" if count >= 1e9 else f"{count / 1e6:.3f} MB"
