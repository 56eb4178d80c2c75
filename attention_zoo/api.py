"""What a notebook needs: `load` a run and use it. Needs neither configs/ nor the mesh the run was trained on."""

from etils import epath

from attention_zoo import tasks
from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints
from attention_zoo.training.config import from_json


def load(path, checkpoint=None):
  """Opens a run's parameters for use on the devices at hand.

  path: the work directory, local or gs://. checkpoint: "average", "latest" or a step; by default the average if there
  is one, else the latest. Returns the task's runner, for translation `tasks.translator.Translator`.
  Raises UserError when there is no such run or checkpoint.
  """
  path = epath.Path(path)
  if not (path / "config.json").exists():
    raise UserError(f"{path} is no work directory of a run: it has no config.json")
  if checkpoint is None:
    checkpoint = "average" if (path / "average").exists() else "latest"
  config = from_json((path / "config.json").read_text())
  task = tasks.make(config, path)
  run = task.Runner(task, checkpoints.load_params(path, checkpoint))
  run.checkpoint = str(checkpoint)
  return run
