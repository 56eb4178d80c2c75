"""How fast each model decodes beside the Transformer: beam 4 and greedy, at the sizes of the phrasebook's configs.

  python -m benchmarks.decode_models [--rows=64 --source_length=20 --length=20 --rounds=3] [--only=gnmt,luong]

Every model has random parameters and finds `length` tokens for each sentence: nothing but the last token may end it.
The search is the one that translates (`decoding/beam.py`), on one device.
"""

import importlib

from benchmarks import common

RECURRENT = ("sutskever", "bahdanau", "luong", "gnmt", "deep_att", "moe_lstm", "glimpse")
CONFIGS = (
  "quickstart", "translation/bytenet_phrasebook", "translation/conv_s2s_phrasebook",
  *(f"seq2seq/{name}_phrasebook" for name in RECURRENT),
)  # fmt: skip


def config_of(path):
  return importlib.import_module(f"attention_zoo.configs.{path.replace('/', '.')}").get_config()


def make_search(config, *, rows, source_length, length, beam_size):
  """(a function that finds the tokens [rows, length] of each sentence, the number of the model's parameters)."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from attention_zoo import tasks
  from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
  from attention_zoo.decoding.beam import beam_search, gather_beams

  task = tasks.make(config, "nowhere")
  params = jax.jit(task.init)(jax.random.key(0)).params
  source = np.random.default_rng(1).integers(4, config.data.vocab_size, (rows, source_length), dtype=np.int32)

  @jax.jit
  def search(params, source_BS):
    B, S = source_BS.shape
    positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    batch = {"source": source_BS, "source_segments": jnp.ones_like(source_BS), "source_positions": positions_BS}
    decoding = task.decoding(params, batch, num_beams=beam_size)

    def step(tokens_BJ, t, cache):
      logits_BJTV, cache = decoding.step(tokens_BJ[:, :, None], t, cache)
      return logits_BJTV[:, :, 0].at[:, :, jnp.array([PAD, BOS, EOS, UNK])].set(-1e9), cache

    return beam_search(
      step, decoding.cache,
      batch_size=B, beam_size=beam_size, max_lengths_B=jnp.full((B,), length), max_length=length,
      bos=BOS, eos=EOS, pad=PAD, alpha=0.0, n_best=1, reorder=decoding.reorder or gather_beams, grow=decoding.grow,
    ).tokens_BJT[:, 0]  # fmt: skip

  return lambda: jax.device_get(search(params, source)), sum(leaf.size for leaf in jax.tree.leaves(params))


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--rows", type=int, default=64)
  options.add_argument("--source_length", type=int, default=20)
  options.add_argument("--length", type=int, default=20, help="tokens that every search finds")
  options.add_argument("--only", default="", help="of these models, beside the Transformer, separated by commas")
  arguments = options.parse_args(argv)
  common.prepare(1)

  sizes = {name: getattr(arguments, name) for name in ("rows", "source_length", "length")}
  if arguments.tiny:
    sizes = {"rows": 2, "source_length": 4, "length": 3}
  results = {"environment": common.environment(), "settings": sizes, "beams": {}}
  rows = []
  for beam in (4, 1):
    sides, counts = {}, {}
    for path in CONFIGS:
      name = path.rpartition("/")[2].removesuffix("_phrasebook").replace("quickstart", "transformer")
      if arguments.only and name not in ("transformer", *arguments.only.split(",")):
        continue
      sides[name], counts[name] = make_search(config_of(path), **sizes, beam_size=beam)
      tokens = sides[name]()
      if tokens.shape[1] < sizes["length"] or (tokens[:, : sizes["length"] - 1] < 4).any():
        raise SystemExit(f"{name}: a special token was generated")
    seconds = common.alternate(sides, arguments.rounds, warmup=0)
    label = f"beam {beam}" if beam > 1 else "greedy"
    results["beams"][label] = {"seconds": seconds, "parameters": counts}
    for name, rate, _ in common.side_rows(seconds, sizes["rows"] * sizes["length"], "transformer"):
      low, median, high = common.ratios(seconds, name, "transformer")
      times = "" if name == "transformer" else f"{median:.2f} ({low:.2f} to {high:.2f})"
      rows.append((label, name, f"{counts[name]:,}", rate, times))
  columns = ("search", "model", "parameters", "target tokens/s: median (min to max)", "times as fast")
  title = "Decoding, the phrasebook's models, {rows} sentences of {source_length} tokens to {length}".format(**sizes)
  common.publish("decode_models", title, columns, rows, [], results, arguments.out)


if __name__ == "__main__":
  main()
