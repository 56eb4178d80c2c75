"""The card of a trained model: what it is, what it was trained on, with what settings, and how good it was."""

import contextlib
import os

import jax

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import arrays
from attention_zoo.training import config as config_lib
from attention_zoo.training.workdir import read_config, versions

SCORES = ("split", "bleu", "chrf", "perplexity", "beam_size", "alpha")
EMBEDDED = ("phrasebook", "toy")  # sources whose text the package makes itself


def published(run) -> tuple:
  """(config, {name: path}): a run's config without the folders of the machine that it was trained on, of which the last
  names are kept; and the files that it names (the task's `attachments`), by their new names in the exported folder."""
  config = read_config(run.task.workdir).copy_and_resolve_references()  # run.config is as this processor wants it
  for group, field in (("data", "dir"), ("train", "init_from")):
    if files.is_local(path := config[group].get(field, "")):
      config[group][field] = os.path.basename(os.path.normpath(path)) if path else ""
  if "cache_dir" in config.data:
    config.data.cache_dir = ""
  attached = {}
  for field, path in run.task.attachments().items():
    group, name = field.split(".")
    config[group][name] = name + (".txt.gz" if str(path).endswith(".gz") else ".txt")
    attached[config[group][name]] = path
  return config, attached


def make(run, dtype) -> dict:
  """The card of a loaded run whose parameters are stored as dtype."""
  config, _ = published(run)
  data = config.data
  languages = [*data.get("languages", ())]
  return {
    "task": config.task,
    "model": config.model.name,
    "languages": languages,
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    "stored_as": dtype,
    "steps": [*run.parents],
    "data": {"source": data.source, "embedded": data.source.split("(")[0] in EMBEDDED},
    "config": config_lib.flat(config),
    "scores": scores(run.task.workdir, arrays.digest(run.params, run.variables)),
    "versions": versions(),
  }


def scores(workdir, parameters) -> list[dict]:
  """What evaluation has found for these very parameters: of each split its scores, with their signatures.

  parameters: their `arrays.digest`, which a record of evaluation names. What is no such record is left out.
  """
  found = []
  folder = files.expand(workdir) / "eval"
  for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
    with contextlib.suppress(UserError):
      record = files.read_json(path, 1 << 26)
      if isinstance(record, dict) and record.get("parameters") == parameters:
        score = {name: record[name] for name in SCORES if name in record}
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # somebody else may have written it
          _line(score)
          found.append(score)
  return found


def _line(score) -> str:
  """- test: sacreBLEU 27.30 (its signature); perplexity per word 5.1; beam_size 4, alpha 0.6."""
  figures = [f"{bleu['name']} {bleu['score']:.2f} ({bleu['signature']})" for bleu in score.get("bleu", ())]
  for name, value in score.get("perplexity", {}).items():
    figures.append(f"perplexity {name.replace('_', ' ')} {value:.4g}")
  if used := [f"{name} {score[name]:g}" for name in ("beam_size", "alpha") if name in score]:
    figures.append(", ".join(used))
  return f"- {score['split']}: " + "; ".join(figures)


def text(card, use="") -> str:
  """The card for people, as Markdown. use: Python that shows what to do with the folder; by default with this package.
  """
  languages = f"{' to '.join(card['languages'])} " if card["languages"] else ""
  steps = ", ".join(map(str, card["steps"]))
  verb = 'sample("", seed=1)' if card["task"] == "language_modeling" else 'translate(["..."])'
  lines = [
    f"# {card['model']}: {languages}{card['task'].replace('_', ' ')}",
    "",
    f"{card['parameters']:,} parameters, stored as {card['stored_as']}; "
    + (f"the mean of the steps {steps}." if "," in steps else f"step {steps}."),
    f"Trained on `{card['data']['source']}`{', which the package makes itself' * card['data']['embedded']}.",
    "",
    "```python",
    use or f'import attention_zoo as zoo\nrun = zoo.load("THIS FOLDER")\nrun.{verb}',
    "```",
    "",
    "## Scores",
    "",
  ]
  lines += map(_line, card["scores"])
  if card["scores"] and card["stored_as"] != "float32":
    lines += ["", f"Taken before the parameters were stored as {card['stored_as']}."]
  if not card["scores"]:
    lines.append("None: these parameters were not evaluated before they were exported.")
  lines += ["", "## Settings", ""]
  lines += [f"- `{name}`: `{value!r}`" for name, value in card["config"].items()]
  lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in card["versions"].items()) + "."]
  return "\n".join(lines) + "\n"
