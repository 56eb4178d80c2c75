"""How fast each model decodes beside the Transformer: beam 4 and greedy, at the sizes of the phrasebook's configs.

  python -m benchmarks.decode_models [--rows=64 --length=20 --rounds=3] [--only=gnmt,luong]

Every model has random parameters and finds as many tokens as its source has: none of them ends a sentence. The search
is the one that translates, on one device.
"""

import functools
import importlib

from benchmarks import common

RECURRENT = ("sutskever", "bahdanau", "luong", "gnmt", "deep_att", "moe_lstm", "glimpse")
CONFIGS = (
  "quickstart", "translation/bytenet_phrasebook", "translation/conv_s2s_phrasebook",
  *(f"seq2seq/{name}_phrasebook" for name in RECURRENT),
)  # fmt: skip


def config_of(path):
  return importlib.import_module(f"attention_zoo.configs.{path.replace('/', '.')}").get_config()


def make_search(config, *, rows, length, beam_size):
  """(a function that finds the tokens [rows, length] of each sentence, the number of the model's parameters)."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from attention_zoo import tasks
  from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
  from attention_zoo.decoding.constraints import UNCONSTRAINED
  from attention_zoo.tasks.translation_search import search

  config.decode.extra_length = 0
  task = tasks.make(config, "nowhere")
  params = jax.jit(task.init)(jax.random.key(0)).params
  source = np.random.default_rng(1).integers(4, config.data.vocab_size, (rows, length), dtype=np.int32)
  decoding = task.decoding

  def endless(params, batch, *, num_beams):
    """The model's own, that never ends a sentence."""
    found = decoding(params, batch, num_beams=num_beams)

    def step(tokens_BJT, t, cache):
      logits_BJTV, cache = found.step(tokens_BJT, t, cache)
      return logits_BJTV.at[..., jnp.array([PAD, BOS, EOS, UNK])].set(-1e9), cache

    return found._replace(step=step)

  task.decoding = endless
  run = jax.jit(functools.partial(search, task, alpha=0.0, constraints=UNCONSTRAINED, beam_size=beam_size, n_best=1))
  lengths = np.full(rows, length, np.int32)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  return lambda: jax.device_get(run(params, source, lengths).tokens_BJT[:, 0]), count


def main(argv=None):
  options = common.parser(__doc__)
  options.add_argument("--rows", type=int, default=64)
  options.add_argument("--length", type=int, default=20, help="tokens of a source, and of what is found")
  options.add_argument("--only", default="", help="of these models, beside the Transformer, separated by commas")
  arguments = options.parse_args(argv)
  common.prepare(1)

  sizes = {name: getattr(arguments, name) for name in ("rows", "length")}
  if arguments.tiny:
    sizes = {"rows": 2, "length": 4}
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
  title = "Decoding, the phrasebook's models, {rows} sentences of {length} tokens".format(**sizes)
  common.publish("decode_models", title, columns, rows, [], results, arguments.out)


if __name__ == "__main__":
  main()
