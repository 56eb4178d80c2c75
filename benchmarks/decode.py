"""Beam 4 and greedy search with the base model beside Hugging Face generate and CTranslate2 (float32 and int8).

  python -m benchmarks.decode [--rows=64 --source_length=32 --length=32 --rounds=3 --devices=1]

Every side has the same random parameters, and finds `length` tokens for each sentence: the parameters are made such
that EOS never is among the candidates, and alpha is 0, because the sides penalise length differently. The tokens are
compared first. Our cache has room for source + 50 tokens, as when translating. CTranslate2 runs in several
configurations of threads and batches; its fastest counts.
"""

import dataclasses
import pathlib
import tempfile

from benchmarks import common

OURS, ROUNDED = "attention_zoo", "attention_zoo, bfloat16 products"

PAD, BOS, EOS, UNK = range(4)


def make_parameters(model):
  """Random parameters (nested dict of NumPy arrays) under which PAD, EOS and UNK are never generated.

  The last normalisation gets the bias 5u and the embeddings of the three the value -2u, for a unit vector u.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  names = "source source_segments source_positions inputs targets target_segments target_positions".split()
  tiny = {name: jnp.zeros((1, 2), jnp.int32) for name in names}
  params = jax.tree.map(np.array, jax.jit(model.init)(jax.random.key(0), tiny)["params"])
  direction = np.random.default_rng(0).standard_normal(model.config.d_model).astype(np.float32)
  direction /= np.linalg.norm(direction)
  params["embedding"]["table_VD"][[PAD, EOS, UNK]] = -2 * direction
  last = params["decoder"][f"layer_{model.config.num_decoder_layers - 1}"]["feed_forward_norm"]
  last["bias"] = 5 * direction
  # Sharper than random logits are, so that rounding decides no choice.
  last["scale"] *= 2
  return params


def our_search(model, params, source, *, beam_size, length, room, devices=None):
  """A function that finds the best hypotheses, as `tasks/translator.py` does: tokens [rows, length],
  log-probabilities.

  devices: all by default."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from jax.sharding import Mesh, NamedSharding, PartitionSpec

  from attention_zoo.decoding.beam import beam_search
  from attention_zoo.models.translation import transformer

  B, S = source.shape

  @jax.jit
  def search(params, source_BS):
    positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    inputs = {"source": source_BS, "source_segments": jnp.ones_like(source_BS), "source_positions": positions_BS}
    decoding = transformer.decoding(model.config, params, inputs, num_beams=beam_size)

    def step(tokens_BJ, t, cache):
      logits_BJTV, cache = decoding.step(tokens_BJ[:, :, None], t, cache)
      return logits_BJTV[:, :, 0], cache

    found = beam_search(
      step, decoding.cache,
      batch_size=B, beam_size=beam_size, max_lengths_B=jnp.full((B,), length), max_length=room,
      bos=BOS, eos=EOS, pad=PAD, alpha=0.0, n_best=1, reorder=decoding.reorder, grow=decoding.grow,
    )  # fmt: skip
    return found.tokens_BJT[:, 0], found.logprobs_BJ[:, 0]

  mesh = Mesh(np.array(devices or jax.devices()), ("data",))
  params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

  def run():
    rows = jax.device_put(source, NamedSharding(mesh, PartitionSpec("data")))
    with jax.set_mesh(mesh):  # which also tells whoever asks what is compiled for
      tokens, logprobs = jax.device_get(search(params, rows))
    return tokens[:, :length], logprobs

  return run


def make_peers(config, params, source, *, length, directory):
  """{name: function of the beam size that gives tokens}; what is not installed is missing."""
  try:
    from benchmarks import peer_translators as peers
  except ModuleNotFoundError:
    return {}
  import numpy as np

  from attention_zoo.layers.positions import sinusoidal

  positions = np.asarray(sinusoidal(np.arange(max(source.shape[1], length) + 8), config.d_model))
  model = peers.hugging_face(config, params, positions, pad=PAD, bos=BOS, eos=EOS)
  sides = {
    "Hugging Face": lambda beam: peers.hugging_face_search(model, source, beam_size=beam, length=length)
  }
  try:
    import ctranslate2  # noqa: F401
  except ModuleNotFoundError:
    return sides
  cores, rows = common.cores(), len(source)
  for kind, quantization in (("float32", None), ("int8", "int8")):
    for inter, intra, batch in {(1, cores, rows), (cores, 1, -(-rows // cores))}:
      translator = peers.ctranslate2_translator(
        model, directory / kind, quantization=quantization, inter_threads=inter, intra_threads=intra
      )  # fmt: skip
      sides[f"CTranslate2 {kind}, {inter} x {intra} threads"] = (
        lambda beam, translator=translator, batch=batch: peers.ctranslate2_search(
          translator, source, beam_size=beam, length=length, batch=batch
        )
      )  # fmt: skip
  return sides


def fastest(seconds, kind):
  """The name of the configuration of this kind with the smallest median time, or None."""
  names = [name for name in seconds if name.startswith(kind)]
  return min(names, key=lambda name: common.spread(seconds[name])[1]) if names else None


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--rows", type=int, default=64)
  options.add_argument("--source_length", type=int, default=32)
  options.add_argument("--length", type=int, default=32, help="tokens that every search finds")
  options.add_argument(
    "--devices", type=int, default=1, help="simulated devices that share the rows; each reads all parameters"
  )
  arguments = options.parse_args(argv)
  common.prepare(arguments.devices)

  import numpy as np

  from attention_zoo.models.translation import transformer

  results = {
    "environment": common.environment(),
    "settings": {name: value for name, value in vars(arguments).items() if name != "out"},
    "beams": {},
  }
  sizes = dict(vocab_size=37000)
  if arguments.tiny:
    sizes = dict(
      vocab_size=101,
      d_model=32,
      d_ff=64,
      num_heads=2,
      d_k=16,
      d_v=16,
      num_encoder_layers=1,
      num_decoder_layers=1,
    )
  config = transformer.Config(**sizes)
  params = make_parameters(transformer.Transformer(config))
  shape = arguments.rows, arguments.source_length
  source = np.random.default_rng(1).integers(4, config.vocab_size, shape, dtype=np.int32)
  rows, notes = [], []
  with tempfile.TemporaryDirectory() as directory:
    peers = make_peers(config, params, source, length=arguments.length, directory=pathlib.Path(directory))
    for beam in (4, 1):
      label = f"beam {beam}" if beam > 1 else "greedy"
      room = arguments.source_length + 50
      search = lambda dtype: our_search(
        transformer.Transformer(dataclasses.replace(config, matmul_dtype=dtype)), params, source,
        beam_size=beam, length=arguments.length, room=room,
      )  # fmt: skip
      ours = search("float32")
      sides = {OURS: ours, ROUNDED: search("bfloat16")}
      sides |= {name: lambda side=side: side(beam) for name, side in peers.items()}
      tokens, _ = ours()
      if not (tokens >= 4).all() and not arguments.tiny:
        raise SystemExit("a special token was generated")
      equal = {
        name: float(((side()[0] if name == ROUNDED else side()) == tokens).all(1).mean())
        for name, side in sides.items()
        if name != OURS
      }
      seconds = common.alternate(sides, arguments.rounds, warmup=0)
      best = [fastest(seconds, kind) for kind in ("CTranslate2 float32", "CTranslate2 int8")]
      against = [name for name in ("Hugging Face", *best) if name in seconds]
      results["beams"][label] = {
        "seconds": seconds,
        "sentences_with_identical_tokens": equal,
        "ratio": {ours: {name: common.ratios(seconds, ours, name) for name in against} for ours in (OURS, ROUNDED)},
      }
      tables = (common.side_rows(seconds, tokens.size, ours) for ours in (OURS, ROUNDED))
      for (side, rate, ratio), (_, _, rounded) in zip(*tables, strict=True):
        same = f"{equal[side]:.0%}" if side in equal else ""
        ratio, rounded = (ratio, rounded) if side not in (OURS, ROUNDED) else ("", "")
        rows.append((label, side + (" (fastest)" if side in best else ""), rate, ratio, rounded, same))
      for name in ("Hugging Face", "CTranslate2 float32", "CTranslate2 int8"):
        if not any(side.startswith(name) for side in seconds):
          rows.append((label, name, "not run (not installed)", "", "", ""))
      if equal.get("Hugging Face", 1) < 0.9:
        notes.append(f"{label}: FEWER THAN 90 % OF THE SENTENCES ARE IDENTICAL TO HUGGING FACE'S")
  columns = (
    "search",
    "side",
    "target tokens/s: median (min to max)",
    "float32: times faster",
    "bfloat16: times faster",
    "same tokens",
  )
  title = f"Decoding, base, {shape[0]} sentences of {shape[1]} tokens to {arguments.length}"
  common.publish("decode", title, columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
