"""One vector for a whole sentence is a bottleneck: accuracy over the length, without and with attention."""

import pathlib
import tempfile

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from attention_zoo import models
from attention_zoo.configs.seq2seq import bahdanau_phrasebook
from attention_zoo.plots.theme import LIGHT
from attention_zoo.tasks.translation import Translation
from attention_zoo.training import loop

FULL = dict(longest=20, width=128, steps=2000, train=60_000, test=1600, buckets=5, batch_tokens=1024)
QUICK = dict(longest=4, width=16, steps=6, train=200, test=40, buckets=2, batch_tokens=256)
SEED = 0
LEARNING_RATE = 3e-3
TITLE = "The bottleneck of one vector, and attention"
SOURCE = (
  "CS224n 2019, lectures 8 and 14: without attention the encoder's last state must hold all of the sentence, the "
  "bottleneck; Bahdanau et al. 2015, fig. 2: without it BLEU falls with the length of the sentence, with it BLEU does "
  "not. Here: random letters, 1 to {longest} of them, that are to be copied or reversed (the source `toy`). Sutskever "
  "et al. 2014 (two layers of LSTMs; source read backwards, as there) and Bahdanau et al. 2015 (a GRU each way), both "
  "{width} units wide and with about as many parameters, trained with the same {steps:,} updates on the same batches "
  "of mixed lengths, seed {seed}. Measured: greedy translations of sentences that were not trained on, by length; the "
  "share of words that stand in their places, and of whole sentences. It shows what a model of this size learns in so "
  "many updates: the {numbers} numbers of the state that is handed over have room for more."
).format(numbers=4 * FULL["width"], seed=SEED, **FULL)
KINDS = ("copy", "reverse")
MODELS = {"without attention": "sutskever", "with attention": "bahdanau"}
# What is trained stays here, so that the command goes on where it was stopped.
WORK = pathlib.Path("runs/claims/bottleneck")


def measure(quick):
  sizes = QUICK if quick else FULL
  if quick:
    with tempfile.TemporaryDirectory() as work:
      runs = _runs(sizes, pathlib.Path(work), quiet=True)
  else:
    runs = _runs(sizes, WORK, quiet=False)
  rows = []
  for kind in KINDS:
    for name, run in runs[kind].items():
      edges = run["edges"]
      for bucket in sorted({0, len(edges) // 2, len(edges) - 1}):
        low, high = edges[bucket]
        claimed = "stays" if name == "with attention" else ("high" if not bucket else "falls")
        share = f"{run['words'][bucket]:.1%} of words, {run['sentences'][bucket]:.1%} of sentences"
        rows.append([f"{kind}, {name}, {low} to {high} words", claimed, None, share])
  for name, run in runs["copy"].items():
    rows.append([f"{name}: parameters", None, run["closed_form"], run["parameters"]])
  return {"rows": rows, "runs": runs, "sizes": sizes, "seed": SEED, "learning_rate": LEARNING_RATE}


def draw(results):
  figure = Figure(figsize=(10, 4), layout="constrained")
  for axes, (kind, runs) in zip(figure.subplots(1, 2, sharey=True), results["runs"].items(), strict=True):
    for (name, run), color in zip(runs.items(), (LIGHT["orange"], LIGHT["blue"]), strict=True):
      middles = [sum(edges) / 2 for edges in run["edges"]]
      axes.plot(middles, run["words"], "o-", ms=4, lw=1.5, color=color, label=f"{name}: words")
      axes.plot(middles, run["sentences"], "s--", ms=4, lw=1.2, color=color, mfc="none", label=f"{name}: sentences")
    axes.axhline(1 / 26, color=LIGHT["muted"], ls=":", lw=1, zorder=0)
    axes.set(xlabel="words of the sentence", ylim=(-0.03, 1.05), title=kind)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
  axes.text(middles[-1], 1 / 26 + 0.01, "chance", color=LIGHT["muted"], ha="right", va="bottom", fontsize=8)
  figure.axes[0].set_ylabel("right, of greedy translations")
  figure.axes[0].legend(loc="center left", bbox_to_anchor=(0.02, 0.38))
  return figure


def config_of(kind, model, sizes):
  """The config of one run; those of the two models of a kind differ in nothing but config.model."""
  width = sizes["width"]
  config = bahdanau_phrasebook.get_config()
  fields = dict(d_model=width // 2, d_hidden=width, dropout=0.0, init_scale=0.08)
  fields |= dict(dtype="float32", matmul_dtype="float32")
  if model == "sutskever":
    fields |= dict(cell="lstm", num_layers=2, reverse_source=True)
  else:
    fields |= dict(d_attention=width // 2, d_maxout=width // 2)
  config.model = ConfigDict(dict(name=model, **fields)).lock()
  longest, steps = sizes["longest"], sizes["steps"]
  text = f"toy(kind={kind!r}, max_length={longest}, train={sizes['train']}, test={sizes['test']}, seed={SEED})"
  config.data.update(
    # The letters, as the beginnings of words; without, the space, those two and four special pieces: no other words.
    source=text, languages=("plain", "done"), vocab_size=57,
    batching="packed", batch_tokens=sizes["batch_tokens"], row_length=longest + 2, max_length=longest + 2,
  )  # fmt: skip
  config.optimizer.update(
    schedule=f"cosine(decay_steps={steps}, end_factor=0.05)", learning_rate=LEARNING_RATE, warmup_steps=steps // 20
  )
  config.train.update(
    steps=steps, label_smoothing=0.0, seed=SEED, eval_every=max(steps // 4, 1), checkpoint_every=max(steps // 6, 1),
    keep=1, log_every=max(steps // 20, 1), dev_samples=0,
  )  # fmt: skip
  config.decode.update(beam_size=1, alpha=0.0, extra_length=2)
  return config


def _runs(sizes, work, quiet):
  return {
    kind: {name: _run(kind, model, sizes, work / f"{kind}_{model}", quiet) for name, model in MODELS.items()}
    for kind in KINDS
  }


def _run(kind, model, sizes, workdir, quiet):
  """Trains one model, or goes on with it, and translates the split "test"."""
  config = config_of(kind, model, sizes)
  task = Translation(config, workdir)
  params = loop.train(task, config, workdir, quiet=quiet).params
  sources, references = zip(*task.source.pairs("test"), strict=True)
  found = task.runner(params, {}, checkpoint="latest", step=sizes["steps"]).translate(sources)
  places = np.array([_in_place(*pair) for pair in zip(found, references, strict=True)])
  whole = np.array([a == b for a, b in zip(found, references, strict=True)])
  lengths = np.array([len(reference.split()) for reference in references])
  step = sizes["longest"] // sizes["buckets"]
  edges = [(low, low + step - 1) for low in range(1, sizes["longest"] + 1, step)]
  inside = [(lengths >= low) & (lengths <= high) for low, high in edges]
  module, fields = models.find(model), dict(config.model)
  fields.pop("name")
  return {
    "edges": edges,
    "count": [int(which.sum()) for which in inside],
    "words": [float(places[which].sum() / max(lengths[which].sum(), 1)) for which in inside],
    "sentences": [float(whole[which].sum() / max(which.sum(), 1)) for which in inside],
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    "closed_form": module.parameter_count(module.Config(vocab_size=config.data.vocab_size, **fields)),
  }


def _in_place(found, reference):
  """How many words of the reference stand in their places."""
  return sum(a == b for a, b in zip(found.split(), reference.split(), strict=False))
