"""What a notebook needs: `load` a run and use it, without configs/ or the mesh the run was trained on."""

from etils import epath

from attention_zoo import tasks
from attention_zoo.errors import UserError
from attention_zoo.training import checkpoints, distributed, untrusted
from attention_zoo.training.workdir import read_config


def load(path, checkpoint=None, data_dir=None):
  """Opens a run's parameters for use on the devices at hand.

  path: the work directory, local or gs://. checkpoint: "average", "latest" or a step; by default the average
  if there is one, else the latest. data_dir: where the text lies now, in place of config.data.dir. Returns the task's
  runner, for translation `tasks.translator.Translator`.
  Raises UserError when there is no such run or checkpoint, and for a folder that is not as training leaves it: it may
  come from anybody (`training/untrusted.py`).
  """
  distributed.hush_libtpu()
  path = epath.Path(path)
  untrusted.check_folder(path)
  try:
    config = read_config(path)
  except ImportError as error:
    raise UserError(f"to read {path}, install what Cloud Storage needs: pip install 'attention_zoo[gcs]'") from error
  tasks.validate(config)
  untrusted.check_digest(path)
  untrusted.check_ranges(config)
  if "cache_dir" in config.data:
    config.data.cache_dir = ""  # where somebody else's run kept its tokens is not where this one may write
  if data_dir is not None:
    config.data.dir = str(data_dir)
  task = tasks.make(config, path)
  shapes = untrusted.abstract_params(task, path)
  if checkpoint is None:
    checkpoint = "average" if (path / "average").exists() else "latest"
  directory = checkpoints.params_directory(path, checkpoint)
  params = untrusted.read_params(directory, shapes)
  return task.runner(params, {}, checkpoint=str(checkpoint), step=directory.parent.name)
