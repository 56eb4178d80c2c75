"""Time, memory and rate of each attention by length, forward and backward, bfloat16, heads of 64."""

import contextlib
import functools

import jax
import jax.numpy as jnp

from attention_zoo.ops import dot_product, variant
from benchmarks.accelerator.part import at_once, seconds

LENGTHS = (256, 1024, 8192, 32_768)
TOKENS, HEADS, DEPTH = 32_768, 8, 64
WIDTH = 256
# What a config writes -> (keys that a query sees at length L, whether all pairs are held).
VARIANTS = {
  "dot_product": (lambda L: L / 2, False),
  "shaw(max_distance=16)": (lambda L: L / 2, True),
  "music": (lambda L: L / 2, True),
  "transformer_xl": (lambda L: L / 2, True),
  "alibi": (lambda L: L / 2, True),
  f"local(block_width={WIDTH})": (lambda L: min(1.5 * WIDTH, L / 2), False),
  f"sliding_window(width={WIDTH})": (lambda L: min(WIDTH, L / 2), False),
  "memory_compressed(width=3, stride=3)": (lambda L: L / 6, False),
}
MOST_PAIRS = 8192  # lengths above are not tried where [L, L] is held: 8 heads of float32 logits are 32 GiB at 32,768


def run(part):
  lengths = (64,) if part.tiny else LENGTHS
  names = list(VARIANTS)[:2] if part.tiny else list(VARIANTS)
  cases = {(name, L): functools.partial(prepare, name, L, part.tiny) for L in lengths for name in names}
  for name, L in list(cases):
    if VARIANTS[name][1] and L > MOST_PAIRS:
      part.add(what=name, length=L, status="not run: it would hold L x L logits")
      del cases[name, L]
  for L in lengths if part.tiny else (256, 1024):
    for kind in (None, "cudnn", "einsum"):
      text = "dot_product, packed rows" + (f", {kind}" if kind else "")
      cases[text, L] = functools.partial(prepare, "dot_product", L, part.tiny, packed=True, kind=kind)
  for L in () if part.tiny else lengths[1:-1]:
    for kind in ("cudnn", "einsum"):
      cases[f"dot_product, {kind}", L] = functools.partial(prepare, "dot_product", L, part.tiny, kind=kind)
  # All are compiled at once, on all cores, then timed one by one.
  compiled = at_once(cases)
  for (name, L), found in compiled.items():
    if isinstance(found, Exception):
      part.failed(f"{name}, length {L}", found)
      continue
    if part.left() < 2:
      part.note(f"{name}, length {L}: not run, no time was left")
      continue
    program, arguments, rows = found
    try:
      arguments = arguments()
      took = seconds(lambda program=program, arguments=arguments: program(*arguments), rounds=3, at_least=0.05)
    except Exception as error:
      part.failed(f"{name}, length {L}", error)
      continue
    keys = 15 if "packed" in name else VARIANTS.get(name, VARIANTS["dot_product"])[0](L)
    # Scores and values, forward and twice backward, of the pairs that are seen.
    flops = 3 * 2 * 2 * rows * L * keys * (2 if part.tiny else HEADS) * (8 if part.tiny else DEPTH)
    memory = program.memory_analysis()
    part.add(
      what=name, length=L, rows=rows, milliseconds=1e3 * took, useful_flops=flops / took,
      temporary_mib=memory.temp_size_in_bytes / 2**20 if memory else None,
    )  # fmt: skip


def prepare(name, L, tiny, packed=False, kind=None):
  """(compiled forward and backward, function that makes its arguments, rows).

  kind: of `dot_product.implementation`; None: what the layers take.
  """
  N, K = (2, 8) if tiny else (HEADS, DEPTH)
  rows = 2 if tiny else max(TOKENS // L, 1)
  made = variant.make(name, variant.Sizes(N * K, N, K, K, L, causal=True))
  shapes = [(rows, L, N, made.query_depth or K), (rows, L, N, K), (rows, L, N, K), (rows, L, N, made.output_depth or K)]
  parameters = {n: p.shape for n, p in made.parameters.items()}

  def arguments():
    keys = jax.random.split(jax.random.key(0), 8)
    draw = jax.jit(lambda key, shape: jax.random.normal(key, shape, jnp.bfloat16), static_argnums=1)
    p = {
      n: 0.1 * draw(key, shape)
      for key, (n, shape) in zip(keys[4 : 4 + len(parameters)], parameters.items(), strict=True)
    }
    segments_BT = jnp.ones((rows, L), jnp.int32)
    if packed:  # sentences of 29 tokens, one behind the other
      segments_BT *= jnp.arange(L, dtype=jnp.int32)[None] // 29 + 1
    return p, [draw(key, shape) for key, shape in zip(keys[:4], shapes, strict=True)], segments_BT

  def step(p, arrays, segments_BT):
    from attention_zoo.ops import masks

    *qkv, cotangent = arrays
    mask = masks.causal(L) & masks.segments(segments_BT, segments_BT)  # as a layer has it
    attend = functools.partial(made.attend, mask=mask, segments_BT=segments_BT)
    out, vjp = jax.vjp(attend, p, *qkv)
    return out, vjp(cotangent)

  abstract = jax.eval_shape(arguments)
  with dot_product.implementation(kind) if kind else contextlib.nullcontext():
    return jax.jit(step).lower(*abstract).compile(), arguments, rows
