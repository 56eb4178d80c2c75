"""Every translation model on the same text with as many updates: BLEU, loss, speed, and the curves.

  python -m benchmarks.translation_models --text=multi30k/tok
  python -m benchmarks.translation_models                         # on the embedded phrasebook
  options: --steps=1500 --batch_tokens=2048 --only=sutskever,bahdanau --runs=DIR (where the runs are kept)

--text: a folder with {train,val,test_2016_flickr}.{en,de}, tokenised. The sizes are those of the phrasebook's configs;
the batches (bucketed, in the same order), the vocabulary, dropout, label smoothing and the number of updates are the
same for all; optimizer and learning rate are those of each model's config. `transformer` is the quickstart's,
`transformer_tiny` has the sizes of Wu et al. 2021 (four layers a side). Scored is the average of the last five
checkpoints, with beam 4: BLEU of all of test, and of the sentences whose source has at most `--long` words, or more.
What is trained is kept: the same command goes on.
"""

import importlib
import json
import pathlib
import statistics
import tempfile

from attention_zoo import files
from benchmarks import common

# Name -> (config, fields of the model that differ from it).
MODELS = {
  "sutskever": ("seq2seq/sutskever_phrasebook", {}),
  "bahdanau": ("seq2seq/bahdanau_phrasebook", {}),
  "luong": ("seq2seq/luong_phrasebook", {}),
  "gnmt": ("seq2seq/gnmt_phrasebook", {}),
  "deep_att": ("seq2seq/deep_att_phrasebook", {}),
  "moe_lstm": ("seq2seq/moe_lstm_phrasebook", {}),
  "glimpse": ("seq2seq/glimpse_phrasebook", {}),
  "bytenet": ("translation/bytenet_phrasebook", {}),
  "conv_s2s": ("translation/conv_s2s_phrasebook", {}),
  "transformer": ("quickstart", {}),
  "transformer_tiny": ("quickstart", dict(d_ff=256, num_encoder_layers=4, num_decoder_layers=4)),
}
WITHOUT_ATTENTION = ("sutskever", "bytenet")
KEPT = 5  # checkpoints that are averaged


def parse(argv):
  options = common.parser(__doc__)
  options.add_argument("--text", type=files.expand, help="a folder; the phrasebook by default")
  options.add_argument("--steps", type=int, default=1500)
  options.add_argument("--batch_tokens", type=int, default=2048)
  options.add_argument("--only", default=",".join(MODELS), help="names, with commas between")
  options.add_argument("--long", type=int, default=15, help="a sentence with more words is long")
  options.add_argument("--runs", type=files.expand, help="where the runs are kept (default: a folder that is deleted)")
  arguments = options.parse_args(argv)
  if unknown := [name for name in arguments.only.split(",") if name not in MODELS]:
    options.error(f"--only: there is no {unknown[0]!r}; there are {', '.join(MODELS)}")
  return arguments


def make_config(name, arguments):
  path, fields = MODELS[name]
  config = importlib.import_module(f"attention_zoo.configs.{path.replace('/', '.')}").get_config()
  steps = arguments.steps
  if arguments.tiny:
    config.model = smallest(config)
    config.model.dropout = 0.0
  else:
    config.model.update(**fields, dropout=0.2)
  if arguments.text:
    config.data.update(
      source="text", dir=str(arguments.text), train_split="train", dev_split="val", test_split="test_2016_flickr",
      tokenized=True, normalization="identity", split_digits=False, vocab_size=4096,
    )  # fmt: skip
  config.data.update(batching="bucketed", batch_tokens=arguments.batch_tokens, row_length=64, max_length=63)
  if arguments.tiny:
    toy = "toy(kind='copy', max_length=4, train=200, test=40, seed=0)"
    config.data.update(
      source=toy, languages=("plain", "done"), vocab_size=57, batch_tokens=128, row_length=16, max_length=15
    )
  schedule = config.optimizer.schedule.partition("(")[0]
  config.optimizer.update(
    schedule=f"{schedule}(decay_steps={max(steps - 100, 1)}, end_factor=0.05)", warmup_steps=min(100, steps)
  )
  every = max(steps // 15, 1)
  config.train.update(steps=steps, eval_every=every, checkpoint_every=every, log_every=every, keep=KEPT, dev_samples=0)
  config.decode.update(beam_size=4)
  return config


def smallest(config):
  """The group `model` of the size that tests use."""
  import dataclasses

  from attention_zoo import models

  fields = dataclasses.asdict(models.find(config.model.name).small())
  return type(config)({"name": config.model.name} | {key: fields[key] for key in fields if key != "vocab_size"}).lock()


def measure(name, arguments, runs) -> dict:
  """Trains one, or goes on with it, and scores it."""
  import jax

  import attention_zoo as zoo
  from attention_zoo import tasks
  from attention_zoo.evaluation.bleu import bleu_report
  from attention_zoo.training import loop
  from attention_zoo.training.average import average
  from attention_zoo.training.metrics import read_metrics

  config = make_config(name, arguments)
  workdir = pathlib.Path(runs) / name
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir)
  average(workdir, last=min(KEPT, arguments.steps))
  run = zoo.load(workdir, "average")
  record = run.evaluate("test").record
  target, tokenized = config.data.languages[1], config.data.tokenized
  pairs = list(zip(record["sources"], record["hypotheses"], record["references"], strict=True))

  def bleu(which):
    chosen = [pair[1:] for pair in pairs if which(len(pair[0].split()) > arguments.long)]
    return bleu_report(*zip(*chosen, strict=True), language=target, tokenized=tokenized)[1] if chosen else None

  scores = {"all": bleu(lambda is_long: True), "short": bleu(lambda is_long: not is_long), "long": bleu(bool)}
  logged = read_metrics(workdir)
  rates = [entry["tokens_per_second"] for entry in logged if "tokens_per_second" in entry]
  return {
    "name": name,
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    "bleu": {which: score and score.value for which, score in scores.items()},
    "signature": scores["all"].signature,
    "dev": [(entry["step"], entry["nll"]) for entry in logged if entry["split"] == "dev"],
    "tokens_per_second": statistics.median(rates) if rates else None,
  }


def table(results, arguments):
  """(columns, rows): worst BLEU first."""
  rows = []
  for found in sorted(results, key=lambda found: found["bleu"]["all"]):
    bleu = ["-" if score is None else f"{score:.2f}" for score in found["bleu"].values()]
    rate = "-" if found["tokens_per_second"] is None else f"{found['tokens_per_second']:,.0f}"
    rows.append((found["name"], f"{found['parameters']:,}", *bleu, f"{found['dev'][-1][1]:.3f}", rate))
  words = (f"at most {arguments.long} words", f"more than {arguments.long}")
  return ("model", "parameters", "BLEU", *words, "dev, nats a token", "training tokens/s"), rows


def picture(results):
  """Loss on dev by updates: of attention in full lines, without it dashed."""
  from matplotlib import colormaps, figure

  from attention_zoo.plots import theme

  fig = figure.Figure(figsize=(8, 4.5), layout="constrained")
  axes = fig.subplots()
  ranked = sorted(results, key=lambda found: found["dev"][-1][1], reverse=True)
  for found, color in zip(ranked, colormaps["viridis"].resampled(len(ranked) + 1).colors, strict=False):
    axes.plot(*zip(*found["dev"], strict=True), color=color, lw=1.6, label=found["name"],
              ls="--" if found["name"] in WITHOUT_ATTENTION else "-")  # fmt: skip
  axes.set(xlabel="updates", ylabel="dev, nats a token")
  axes.legend(title="worst first", fontsize=8, title_fontsize=8)
  for side in ("top", "right"):
    axes.spines[side].set_visible(False)
  axes.grid(color=theme.LIGHT["rule"], lw=0.6)
  return fig


def main(argv=None):
  arguments = parse(argv)
  common.prepare(common.cores())
  results = []
  with tempfile.TemporaryDirectory() as temporary:
    for name in arguments.only.split(","):
      print(name, flush=True)
      results.append(measure(name, arguments, arguments.runs or temporary))
      print(json.dumps(results[-1]["bleu"]), flush=True)
  columns, rows = table(results, arguments)
  text = "Multi30k" if arguments.text else "phrasebook"
  notes = [
    f"{text}, {arguments.steps:,} updates of at most {make_config(results[0]['name'], arguments).data.batch_tokens:,} "
    f"tokens a side, one seed. BLEU of test, beam 4: {results[0]['signature']}."
  ]
  content = {"environment": common.environment(), "results": results}
  common.publish("translation_models", f"Translation models on {text}", columns, rows, notes, content, arguments.out)
  with files.replacing(pathlib.Path(arguments.out) / "translation_models.png") as path:
    picture(results).savefig(path, dpi=130, format="png")


if __name__ == "__main__":
  main()
