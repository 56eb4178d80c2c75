"""The card of a trained model: what it is, what it was trained on, with what settings, and how good it was."""

import contextlib
import os
import re

import jax

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.training import arrays, exported
from attention_zoo.training import config as config_lib
from attention_zoo.training.workdir import read_config, versions

SCORES = ("split", "bleu", "chrf", "perplexity", "scores", "beam_size", "alpha")
WRONG = (UserError, KeyError, TypeError, ValueError, AttributeError, OverflowError)  # what a stranger's record leads to
EMBEDDED = ("phrasebook", "toy", "shapes")  # sources whose data the package makes itself


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


def make(run, dtype, origin="") -> dict:
  """The card of a loaded run whose parameters are stored as dtype. origin: see `folder.write`; by default what the card
  of an exported folder says."""
  config, _ = published(run)
  data = config.data
  steps = [*getattr(run, "parents", [int(run.step)])]
  languages = [*data.get("languages", ())]
  return {
    "task": config.task,
    "model": config.model.name,
    "languages": languages,
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    "stored_as": dtype,
    "steps": steps,
    **({"origin": origin} if (origin := origin or _origin(run.task.workdir)) else {}),
    "data": {"source": data.source, "embedded": data.source.split("(")[0] in EMBEDDED},
    "config": config_lib.flat(config),
    "scores": scores(run.task.workdir, arrays.digest(run.params, run.variables)),
    "versions": versions(),
  }


class Card(dict):
  """A card that shows itself: a line or two for a terminal, Markdown for a notebook."""

  def __repr__(self):
    languages = f"{' to '.join(self['languages'])}, " if self["languages"] else ""
    made = f"trained on {self['data']['source']} for {max(self['steps'], default=0):,} steps"
    made = f"from {self['origin']}" if "origin" in self else made
    best = "; ".join(_figures(score, short=True) for score in self["scores"]) or "not evaluated"
    return (
      f"<Card of {self['model']}: {languages}{self['task'].replace('_', ' ')}, {self['parameters']:,} parameters, "
      f"{made}; {best}>"
    )

  def _repr_markdown_(self):
    return text(self, folder=self["folder"])


def of(run) -> Card:
  """The card of a loaded run: that of its parameters, or the one that came with an exported folder."""
  about = make(run, "float32")
  if exported.is_exported(run.task.workdir):
    about |= _recorded(run.task.workdir)
  return Card(about, folder=str(run.task.workdir))


def _recorded(folder) -> dict:
  """Of the card of an exported folder what its config and parameters do not say; nothing where it is no card."""
  with contextlib.suppress(*WRONG):
    about = files.read_json(folder / "card.json", 1 << 22)
    found = {name: about[name] for name in ("stored_as", "scores", "versions")}
    for score in found["scores"]:
      _figures(score)
    if isinstance(found["stored_as"], str) and isinstance(found["versions"], dict):
      return found
  return {}


def _figures(score, short=False) -> str:
  """test: sacreBLEU 27.30 (its signature); perplexity per word 5.1; beam_size 4, alpha 0.6."""
  figures = []
  for bleu in score.get("bleu", ())[: 1 if short else None]:
    figures.append(f"{bleu['name']} {bleu['score']:.2f}" + f" ({bleu['signature']})" * (not short))
  perplexities = [
    f"{'perplexity ' * name.startswith('per_')}{name.replace('_', ' ')} {value:.4g}"  # translation: per_word
    for name, value in score.get("perplexity", {}).items()
    if not short or "per_word" in name
  ]
  others = [f"{name} {value:.4g}" for name, value in score.get("scores", {}).items()][: 1 if short else None]
  used = [f"{name} {score[name]:g}" for name in ("beam_size", "alpha") if name in score and not short]
  return f"{score['split']}: " + "; ".join([*figures, *perplexities, *others, *[", ".join(used)] * bool(used)])


def _origin(workdir) -> str:
  path = files.expand(workdir) / "card.json"
  found = files.read_json(path) if path.exists() else {}
  origin = found.get("origin", "") if isinstance(found, dict) else ""
  return origin if isinstance(origin, str) else ""


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
        with contextlib.suppress(*WRONG):
          _figures(score)
          found.append(score)
  return found


USES = {
  "translation": 'run.translate(["..."])',
  "language_modeling": 'run.sample("", seed=1)',
  "music": "run.sample(seconds=20, seed=1)[0].save('out.mid')",
  "classification": 'run.classify(["..."])',
  "regression": 'run.predict(["..."])',
  "tagging": 'run.tag(["..."])',
  "masked_language_modeling": 'run.fill("... [MASK] ...")',
  "permutation_language_modeling": 'run.vectors(["..."])',
  "image_modeling": "run.sample(16, seed=1).save('grid.png')",
  "super_resolution": "run.upscale('small.png', seed=1).save('large.png')",
  "super_resolution_gan": "run.upscale('small.png').save('large.png')",
}


def _plain(value) -> str:
  """A stranger's words as Markdown that shows them, and nothing else: no picture, no link, no markup."""
  return re.sub(r"([\\`\[\]])", r"\\\1", " ".join(str(value).split())).replace("<", "&lt;")


def _code(value) -> str:
  return f"`{' '.join(str(value).split()).replace('`', chr(39))}`"


def made(run) -> str:
  """One sentence: where a run's parameters are from."""
  if origin := _origin(run.task.workdir):
    return f"From {_plain(origin)}."
  return f"Step {run.step} of an attention_zoo run on {_code(run.config.data.source)}."


def text(card, use="", folder="THIS FOLDER") -> str:
  """The card for people, as Markdown. folder: where it lies. use: Python that shows what to do with the folder; by
  default with this package."""
  languages = f"{_plain(' to '.join(card['languages']))} " if card["languages"] else ""
  origin = card.get("origin")
  made = f"{_code(card['data']['source'])}{', which the package makes itself' * card['data']['embedded']}"
  steps = ", ".join(map(str, card["steps"]))
  verb = USES.get(card["task"], "run")
  lines = [
    f"# {card['model']}: {languages}{card['task'].replace('_', ' ')}",
    "",
    f"{card['parameters']:,} parameters, stored as {_plain(card['stored_as'])}; "
    + ("imported." if origin else f"the mean of the steps {steps}." if "," in steps else f"step {steps}."),
    f"From {_plain(origin)}." if origin else f"Trained on {made}.",
    "",
    "```python",
    use or f'import attention_zoo as zoo\nrun = zoo.load("{folder}")\n{verb}',
    "```",
    "",
    "## Scores",
    "",
  ]
  lines += [f"- {_plain(_figures(score))}" for score in card["scores"]]
  if card["scores"] and card["stored_as"] != "float32":
    lines += ["", f"Taken before the parameters were stored as {card['stored_as']}."]
  if not card["scores"]:
    lines.append("None: these parameters were not evaluated before they were exported.")
  lines += ["", "## Settings", ""]
  lines += [f"- {_code(name)}: {_code(repr(value))}" for name, value in card["config"].items()]
  lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in card["versions"].items()) + "."]
  return "\n".join(lines) + "\n"
