"""What every entry point shares: flags, and errors a user can put right told in one line with exit code 2."""

import contextlib
import logging
import os
import pathlib
import re
import sys
import traceback

from absl import app, flags
from ml_collections import config_flags

from attention_zoo import __version__, files, streams
from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest

FLAGS = flags.FLAGS
VERSION = flags.DEFINE_bool("version", False, "Print the version and end.")
_GROUPS: list[str] = []  # of `define_fields`
flags.disclaim_key_flags()  # They count as flags of the entry point that asks for them: --help shows them.


def define_config():
  """--config=FILE and --config.GROUP.FIELD=VALUE."""
  return config_flags.DEFINE_config_file("config", None, "The run's config file; --config.GROUP.FIELD=VALUE overrides.")


class _Path(flags.ArgumentParser):
  """Shells leave the ~ of --workdir=~/run as it is."""

  def parse(self, argument):
    return str(files.expand(argument)) if argument else ""

  def flag_type(self):
    return "path"


def define_path(name, help):
  """--NAME=PATH, in which a leading ~ stands for the home directory."""
  return flags.DEFINE(_Path(), name, None, help, serializer=flags.ArgumentSerializer())


def define_checkpoint():
  return flags.DEFINE_string(
    "checkpoint", None, "average, latest or a step; default: average unless the latest is newer or better."
  )


def define_fields(group, help):
  """--GROUP.NAME=VALUE, any number of times; the flag's value is the list of "NAME=VALUE"."""
  _GROUPS.append(group)
  return flags.DEFINE_multi_string(group, [], help)


def define_workdir():
  return define_path("workdir", "The run's directory (local or gs://): checkpoints, logs, vocabulary.")


_SAMPLING = "num_samples max_tokens temperature top_k top_p min_p repetition_penalty stop seed".split()


def define_sampling():
  """The flags of drawing token by token; `sampling` has their values."""
  flags.DEFINE_integer("num_samples", 1, "Of each prompt.", lower_bound=1)
  flags.DEFINE_integer("max_tokens", None, "Of a sample; the config's by default.", lower_bound=1)
  flags.DEFINE_float("temperature", None, "0 always takes the most probable token; below 1 is bolder.")
  flags.DEFINE_integer("top_k", None, "Draw from the k most probable tokens only; 0: from all.")
  flags.DEFINE_float("top_p", None, "Draw from the most probable tokens that together have this probability.")
  flags.DEFINE_float("min_p", None, "Draw from tokens with at least this part of the largest probability.")
  flags.DEFINE_float("repetition_penalty", None, "Above 1: tokens that were there are less probable.")
  flags.DEFINE_multi_string("stop", [], "A text that ends a sample; may be given several times.")
  flags.DEFINE_integer("seed", 0, "Sample i is drawn with seed + i.", lower_bound=0)


def sampling() -> dict:
  """name -> value of each flag of `define_sampling`."""
  return {name: FLAGS[name].value for name in _SAMPLING}


def given(names, known, run) -> dict:
  """name -> value of those of the flags that were given. Raises UserError for one that is not `known` to the run."""
  values = {name: FLAGS[name].value for name in names if FLAGS[name].value not in (None, "")}
  for name in values:
    if name not in known:
      raise UserError(f"--{name} is for other models than those of the task {run.config.task!r}")
  return values


def run(main, required=("workdir",)):
  """Runs main() after parsing the flags. A wrong flag, config or input: message, exit code 2; Ctrl-C: 130."""

  def parse(argv):
    streams.prepare()
    try:
      rest = FLAGS([_expanded(argument) for argument in argv])
      if VERSION.value:
        print(f"attention_zoo {__version__}")
        raise SystemExit(0)
      if "config" in FLAGS and FLAGS["config"].value is not None:
        FLAGS["config"].value.get("task")  # A file that could not be loaded complains when it is first used.
    except SystemExit:  # --help was printed, which absl counts as a failure
      raise SystemExit(0) from None
    except (flags.Error, UserError, KeyError, AttributeError, TypeError, OSError) as error:
      raise SystemExit(_complain(_explain(error))) from error
    if len(rest) > 1:
      raise SystemExit(_complain(f"cannot use the argument {rest[1]!r}: every option is written --name=value"))
    missing = [name for name in required if FLAGS[name].value in (None, "")]
    if missing:
      raise SystemExit(_complain(f"--{missing[0]} is missing (see --help)"))
    return rest

  def start(_):
    from attention_zoo.training import compilation, distributed

    distributed.hush_libtpu()
    # In place of absl's handler, which would show JAX's probing for devices and hide our own warnings.
    logging.basicConfig(level=logging.WARNING, handlers=[_Warnings()], force=True)
    compilation.prepare()
    return guard(main)

  try:
    app.run(start, flags_parser=parse)
  except KeyboardInterrupt:  # also while JAX is imported; training listens by itself
    with contextlib.suppress(OSError):
      print("interrupted", file=sys.stderr)
    _leave(130)


class _Warnings(logging.Handler):
  """Prints to what standard error is at the moment: a progress bar puts itself in its place and makes room."""

  def emit(self, record):
    with contextlib.suppress(OSError):
      print(f"{record.levelname}: {record.getMessage()}", file=sys.stderr)


def guard(main):
  """Returns main(), or ends the process: with one line and exit code 2 for a UserError, and where this is one of
  several processes with exit code 1 for anything else that is raised."""
  from attention_zoo.training import distributed

  try:
    code = main()
    if sys.stdout is not None:
      sys.stdout.flush()  # what a full disk refuses is told now
    return code
  except UserError as error:
    code = _complain(error)
  except Exception:
    if not distributed.is_joined():
      raise
    traceback.print_exc()
    print("error: one of several processes failed; start all of them again to resume", file=sys.stderr)
    code = 1
  _leave(code)


def _leave(code):
  """Ends the process at once. Python would wait: for the other processes, and for Orbax's threads,
  ten minutes for a directory that cannot be made."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, UserError, AttributeError):  # full, or closed
      stream.flush()
  os._exit(code)


def _expanded(argument) -> str:
  """--config=~/file.py with the home directory, and --config=quickstart as a file of configs/; that flag's parser is
  not ours. --GROUP.NAME=VALUE as --GROUP=NAME=VALUE, where there is such a flag.

  Raises UserError for a name that is neither a file nor one of configs/.
  """
  flag, equals, path = argument.partition("=")
  group, dot, name = flag.partition(".")
  if dot and group.lstrip("-") in _GROUPS:
    return f"{group}={name}{equals}{path}"
  if flag.lstrip("-") != "config" or not path:
    return argument
  found = files.expand(path)
  if not files.exists(path):
    folder = pathlib.Path(__file__).parent / "configs"
    named = folder / f"{path.removeprefix('configs/').removesuffix('.py')}.py"
    if not os.path.isfile(named):
      names = sorted(str(p.relative_to(folder).with_suffix("")) for p in (*folder.glob("*.py"), *folder.glob("*/*.py")))
      raise UserError(
        f"--config={path}: there is no such file, and no config of that name{nearest(path, names)}; "
        f"there are {', '.join(names)}"
      )
    found = named
  return f"{flag}={found}"


def _explain(error) -> str:
  """absl's and ConfigDict's messages in one line."""
  text = str(error.args[0] if error.args else error).replace("\\n", " ").replace("\n", " ").strip()
  if isinstance(error, (KeyError, AttributeError)):
    wanted = re.findall(r'Key "([^"]+)" does not exist', text) or re.findall(r"[\w.]+", text)
    near = re.findall(r'Did you mean "([^"]+)"', text)
    return f"config has no field {wanted[0]!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
  return text


def _complain(error) -> int:
  with contextlib.suppress(OSError):  # a log on a disk that is full: the exit code still tells
    print(f"error: {error}", file=sys.stderr)
  return 2


def paths(value) -> list[str]:
  """A,B as [A, B], but for a folder whose own name has a comma."""
  return [value] if files.exists(value) else value.split(",")


def whole(text, flag) -> int:
  try:
    return int(text)
  except ValueError as error:
    raise UserError(f"--{flag}: {text!r} is not a whole number") from error
