"""The card of a trained model: what it is, what it was trained on, with what settings, and how good it was."""

import contextlib

import jax

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import config as config_lib
from attention_zoo.training.workdir import read_config, versions

SCORES = ("split", "bleu", "chrf", "perplexity", "beam_size", "alpha")
EMBEDDED = ("phrasebook", "toy")  # sources whose text the package makes itself


def make(run, dtype) -> dict:
  """The card of a loaded run whose parameters are stored as dtype."""
  config, data = run.config, run.config.data
  languages = [*data.get("languages", ())]
  return {
    "task": config.task,
    "model": config.model.name,
    "languages": languages,
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    "stored_as": dtype,
    "steps": [*run.parents],
    "data": {"source": data.source, "embedded": data.source.split("(")[0] in EMBEDDED},
    "config": config_lib.flat(read_config(run.task.workdir)),  # not as this processor wants it
    "scores": scores(run.task.workdir, run.checkpoint, [*run.parents]),
    "versions": versions(),
  }


def scores(workdir, checkpoint, steps) -> list[dict]:
  """What evaluation has found for these very parameters: of each split its scores, with their signatures."""
  found = []
  folder = files.expand(workdir) / "eval"
  for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
    with contextlib.suppress(UserError):
      record = files.read_json(path, 1 << 26)
      if isinstance(record, dict) and record.get("parents", [record.get("step")]) == steps:
        found.append({name: record[name] for name in SCORES if name in record})
  return found


USES = {"language_modeling": 'run.sample("", seed=1)', "music": "run.sample(seconds=20, seed=1)[0].save('out.mid')"}


def text(card) -> str:
  """The card for people, as Markdown."""
  languages = f"{' to '.join(card['languages'])} " if card["languages"] else ""
  steps = ", ".join(map(str, card["steps"]))
  lines = [
    f"# {card['model']}: {languages}{card['task'].replace('_', ' ')}",
    "",
    f"{card['parameters']:,} parameters, stored as {card['stored_as']}; "
    + (f"the mean of the steps {steps}." if "," in steps else f"step {steps}."),
    f"Trained on `{card['data']['source']}`{', which the package makes itself' * card['data']['embedded']}.",
    "",
    "```python",
    "import attention_zoo as zoo",
    'run = zoo.load("THIS FOLDER")',
    USES.get(card["task"], 'run.translate(["..."])'),
    "```",
    "",
    "## Scores",
    "",
  ]
  for score in card["scores"]:
    figures = [f"{bleu['name']} {bleu['score']:.2f} ({bleu['signature']})" for bleu in score.get("bleu", ())]
    for name, value in score.get("perplexity", {}).items():
      figures.append(f"perplexity {name.replace('_', ' ')} {value:.4g}")
    lines.append(f"- {score['split']}: " + "; ".join(figures))
  if card["scores"] and card["stored_as"] != "float32":
    lines += ["", f"Taken before the parameters were stored as {card['stored_as']}."]
  if not card["scores"]:
    lines.append("None: these parameters were not evaluated before they were exported.")
  lines += ["", "## Settings", ""]
  lines += [f"- `{name}`: `{value!r}`" for name, value in card["config"].items()]
  lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in card["versions"].items()) + "."]
  return "\n".join(lines) + "\n"
