"""The best checkpoint by a figure on the dev split, and when to stop waiting for a better one."""

import json
import math

import jax
from etils import epath

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest
from attention_zoo.training import distributed


class Best:
  """What config.train.best_metric, best_mode and patience ask for. WORKDIR/best.json lists each improvement.

  names: the figures that a dev summary will have. start: the step at which the run begins or resumes.
  Raises UserError for a figure that there is not.
  """

  def __init__(self, workdir, train, names, start: int):
    self.name, self._train, self._start = train.best_metric, train, start
    if train.patience and not self.name:
      raise UserError("config.train.patience needs config.train.best_metric, for example 'loss'")
    if self.name and self.name not in names:
      raise UserError(
        f"config.train.best_metric = {self.name!r} is not a figure of the dev split{nearest(self.name, names)}; "
        f"there are {', '.join(sorted(names))}"
      )
    self._path = epath.Path(workdir) / "best.json"
    known = json.loads(distributed.from_first(json.dumps(read(workdir)))) if self.name else []
    self._improvements = [entry for entry in known if entry["step"] <= start and entry["metric"] == self.name]

  @property
  def step(self) -> int | None:
    return self._improvements[-1]["step"] if self._improvements else None

  def take(self, step: int, summary: dict) -> bool:
    """Whether this step's figure is the best so far; if so it is recorded."""
    if not self.name or step == self.step:
      return False
    value = summary[self.name]
    best = self._improvements[-1]["value"] if self._improvements else math.nan
    better = value < best if self._train.best_mode == "min" else value > best
    if math.isnan(value) or not (better or math.isnan(best)):
      return False
    self._improvements.append({"step": step, "metric": self.name, "value": value})
    if jax.process_index() == 0:
      files.write_text(self._path, json.dumps(self._improvements, indent=1) + "\n")
    return True

  def exhausted(self, step: int) -> bool:
    """Whether as many evaluations as config.train.patience have brought nothing better; asked at one of them."""
    waited = (step - (self.step or 0)) // self._train.eval_every
    return bool(self._train.patience) and waited >= self._train.patience


def read(workdir) -> list[dict]:
  """The improvements {"step", "metric", "value"} of a run, the best last; [] without any.

  Raises UserError for a file that cannot be read, or is not what `Best` writes.
  """
  path = epath.Path(workdir) / "best.json"
  if not path.exists():
    return []
  content = files.read_bytes(path, most=1 << 24)
  try:
    entries = files.parse_json(content, path.name)
    if any(type(e["step"]) is not int or type(e["metric"]) is not str for e in entries):
      raise ValueError("a step or a metric of another type")
    return [{"step": e["step"], "metric": e["metric"], "value": float(e["value"])} for e in entries]
  except (ValueError, KeyError, TypeError, OverflowError) as error:
    raise UserError(f"{path} is damaged ({error}): delete it, and the best is chosen anew") from error
