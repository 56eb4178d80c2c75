"""The flags of launch.cloud_tpu: what they are,
and what of them can be seen to be wrong before a machine costs money."""

import argparse
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import restart

ROOT = pathlib.Path(__file__).parents[1]

# Beginning of the accelerator type -> runtime version (Cloud TPU's documentation, "TPU software versions").
RUNTIMES = {
  "v6e": "v2-alpha-tpuv6e",
  "v5p": "v2-alpha-tpuv5",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v4": "tpu-ubuntu2204-base",
  "v3": "tpu-ubuntu2204-base",
  "v2": "tpu-ubuntu2204-base",
}
# Sizes that exist: chips, or TensorCores where the family counts those; None: any multiple of 8.
_POWERS = {1, 4, 8, 16, 32, 64, 128, 256}
SIZES = {
  "v6e": _POWERS,
  "v5litepod": _POWERS,
  "v5p": None,
  "v4": None,
  "v3": {8, 32, 64, 128, 256, 512, 1024, 2048},
  "v2": {8, 32, 128, 256, 512},
}
# What only makes or sets up a TPU: `run` does neither unless --until_done.
OF_UNTIL_DONE = (
  *("accelerator_type", "runtime_version", "spot", "valid_until", "create_flag"),
  *("wheel", "configs", "data", "max_failures"),
)


def make_parser(description):
  parser = argparse.ArgumentParser(
    prog="python -m launch.cloud_tpu",
    description=description,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(
    dest="command", required=True, metavar="create|setup|run|logs|status|delete"
  )
  common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  common.add_argument(
    "name", metavar="NAME", help="name of the queued resource: small letters, digits, dashes"
  )
  common.add_argument("--zone", required=True, help="for example us-west4-a; where your quota is")
  common.add_argument("--project", help="Google Cloud project; gcloud's own setting if not given")
  common.add_argument(
    "--num_slices",
    type=int,
    default=1,
    metavar="N",
    help="slices (multi-slice training: one mesh axis `replica` over them; %(default)s)",
  )
  common.add_argument(
    "--poll", type=float, default=30, metavar="SECONDS", help="between two looks (%(default)s)"
  )
  common.add_argument("--dry_run", action="store_true", help="print each command, run none")
  creating = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  creating.add_argument("--accelerator_type", metavar="TYPE", help="v5litepod-16, v5p-8, v6e-8, v4-32, ...")
  creating.add_argument(
    "--runtime_version", metavar="VERSION", help="TPU software version; by default the one for TYPE"
  )
  creating.add_argument("--spot", action="store_true", help="cheaper, may be preempted at any time")
  creating.add_argument(
    "--valid_until", metavar="DURATION", help="give up queueing after this long, for example 6h"
  )
  creating.add_argument(
    "--create_flag",
    action="append",
    default=[],
    metavar="--FLAG=VALUE",
    help="further flag of `gcloud compute tpus queued-resources create`, may be repeated: "
    "--create_flag=--network=mine --create_flag=--reserved",
  )
  installing = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  installing.add_argument(
    "--wheel", type=files.expand, metavar="FILE", help="install this wheel; built from the sources if not given"
  )
  installing.add_argument(
    "--configs", type=files.expand, metavar="DIR", help=f"a folder called configs, to be copied ({ROOT / 'configs'})"
  )
  installing.add_argument(
    "--data", metavar="gs://DIR", help="copied to data/ on each worker; train with --config.data.dir=data"
  )
  # What each command does, in its help.
  verbs = {
    "create": ([common, creating], "ask for the TPU and wait until it is ready"),
    "setup": ([common, installing], "copy wheel and configs to all workers and install there"),
    "run": ([common, creating, installing], "start training on all workers and follow its logs"),
    "logs": ([common], "follow the logs of all workers, with their names, until training ends"),
    "status": ([common], "what exists, what runs on every worker, the newest checkpoint"),
    "delete": ([common], "delete the queued resource and its slices, and check that they are gone"),
  }
  made = {
    name: commands.add_parser(name, parents=parents, help=text, description=text, allow_abbrev=False)
    for name, (parents, text) in verbs.items()
  }
  made["create"].add_argument(
    "--no_wait", action="store_true", help="do not wait: ask, and leave it in the queue"
  )
  made["status"].add_argument("--workdir", metavar="gs://DIR", help="also name the newest checkpoint in it")
  made["run"].add_argument(
    "--until_done",
    action="store_true",
    help="create and set up what is missing, and again after preemption, until training is done",
  )
  made["run"].add_argument(
    "--max_failures",
    type=int,
    metavar="N",
    help="with --until_done: give up after N failures in a row without a newer checkpoint (3)",
  )
  made["run"].add_argument("--detach", action="store_true", help="return as soon as training is started")
  made["run"].add_argument(
    "--delete_after",
    action="store_true",
    help="delete the TPU when training has ended, well or badly (not on Ctrl-C)",
  )
  return parser


def check_creation(args) -> int:
  """Checks what a TPU is asked for with, and fills in its runtime version.
  Returns its devices as JAX counts them, 0 where that is not known."""
  if not args.accelerator_type:
    raise UserError("--accelerator_type=TYPE is needed, for example v5litepod-16 (see launch/README.md for sizes)")
  parts = re.fullmatch(r"(v\d+[a-z]*)-(\d+)", args.accelerator_type)
  if not parts:
    raise UserError(f"--accelerator_type={args.accelerator_type!r} does not look like v5litepod-16, v5p-8 or v6e-8")
  family, size = parts[1], int(parts[2])
  if not (args.runtime_version or family in RUNTIMES):
    raise UserError(
      f"no runtime version known for {family}: give --runtime_version (gcloud compute tpus tpu-vm "
      f"versions list --zone={args.zone})"
    )
  args.runtime_version = args.runtime_version or RUNTIMES[family]
  known = SIZES.get(family)
  if family in SIZES and not (size in known if known else size and size % 8 == 0):
    there = (
      ", ".join(f"{family}-{x}" for x in sorted(known)) if known else f"{family}-8, {family}-16, ... in steps of 8"
    )
    raise UserError(f"--accelerator_type={args.accelerator_type} does not exist; there are {there}")
  for extra in args.create_flag:
    if not extra.startswith("--"):
      raise UserError(f"--create_flag={extra!r} must look like --create_flag=--network=mine")
  # v4 and v5p count TensorCores, two a chip, which JAX sees as one device.
  return {"v4": size // 2, "v5p": size // 2}.get(family, size) * args.num_slices if family in SIZES else 0


def check_training(train_args, configs, devices, num_slices) -> str:
  """Raises UserError for what training would refuse once it is on the TPU: flags, config file, fields, mesh, batch.

  devices: of all slices; 0 where not known. Returns what could not be looked at, or "".
  """
  at, word = next((i, arg) for i, arg in enumerate(train_args) if arg.partition("=")[0] == "--config")
  path = word.partition("=")[2] or train_args[at + 1]
  file = pathlib.PurePosixPath(path.partition(":")[0])
  if file.suffix or len(file.parts) > 1:  # not the name of a config that comes with the package
    if file.is_absolute() or file.parts[0] != "configs" or ".." in file.parts:
      raise UserError(f"--config={path}: workers have the folder configs/ only: write --config=configs/NAME.py")
    if not (configs.parent / file).is_file():
      raise UserError(f"--config={path}: there is no {configs.parent / file}")
  if not importlib.util.find_spec("jax"):
    return "JAX is not installed here: the fields of the config were not checked"
  print("checking what training would say to its flags", file=sys.stderr, flush=True)
  command = [sys.executable, "-m", "launch.preflight", str(devices), str(num_slices), *train_args]
  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  done = subprocess.run(
    command, cwd=configs.parent, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    capture_output=True, text=True, stdin=subprocess.DEVNULL,
  )  # fmt: skip
  if done.returncode:
    words = done.stderr.strip() or f"exit code {done.returncode}"
    raise UserError(f"training would refuse this: {words.rpartition('error: ')[2]}")
  return ""


def check(args, train_args, workdir) -> str:
  """Raises UserError for what can be seen to be wrong before anything is asked of gcloud.
  Returns what it could not see."""
  if not re.fullmatch(r"[a-z]([a-z0-9-]{0,60}[a-z0-9])?", args.name):
    raise UserError(
      f"NAME {args.name!r}: small letters, digits and dashes, beginning with a letter, at most 62"
    )
  for flag in ("zone", "project"):
    value = getattr(args, flag)
    if value is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*", value):
      raise UserError(f"--{flag}={value!r} does not look like a {flag}")
  if args.num_slices < 1 or args.poll < 0:
    raise UserError("--num_slices must be at least 1 and --poll not negative")
  if args.command not in ("create", "run") and train_args is not None:
    raise UserError(f"what follows `--` is for run, or to be checked by create: {args.command} has no use for it")
  if args.command == "run":
    restart.need_training(train_args)
    idle = [] if args.until_done else [name for name in OF_UNTIL_DONE if getattr(args, name)]
    if idle:
      raise UserError(
        f"--{idle[0]} does nothing without --until_done: `run` alone takes a TPU "
        "that `create` and `setup` have made ready"
      )
  args.configs = getattr(args, "configs", None) or ROOT / "configs"
  devices = 0
  if args.command == "create" or (args.command == "run" and args.until_done):
    devices = check_creation(args)
  if args.command == "run":
    args.max_failures = 3 if args.max_failures is None else args.max_failures
    if args.max_failures < 1:
      raise UserError("--max_failures must be at least 1")
    if args.detach and (args.until_done or args.delete_after):
      raise UserError("--detach leaves training alone: it excludes --until_done and --delete_after")
  workdir = workdir or getattr(args, "workdir", None)  # status has it as a flag
  if workdir and not re.match(r"gs://[^/]+/.", workdir):
    raise UserError(
      f"--workdir={workdir} must be in a bucket, gs://BUCKET/DIR: the workers' disks are deleted with the "
      "TPU, and progress is read from here (gcloud storage buckets create gs://BUCKET --location=REGION)"
    )
  if args.command in ("setup", "run"):
    if args.wheel and not args.wheel.is_file():
      raise UserError(f"--wheel={args.wheel} is not a file")
    if not args.wheel and not (ROOT / "pyproject.toml").is_file():
      raise UserError(f"{ROOT} has no pyproject.toml to build a wheel from: give one with --wheel=FILE.whl")
    if not args.configs.is_dir() or args.configs.resolve().name != "configs":
      raise UserError(f"--configs={args.configs} must be a directory called configs: it is copied under its name")
    if args.data and not args.data.startswith("gs://"):
      raise UserError(
        f"--data={args.data} must be gs://...; copy it there first: gcloud storage cp -r DIR gs://BUCKET/"
      )
  if not args.dry_run and shutil.which("gcloud") is None:
    raise UserError(
      "gcloud is not on the PATH: install the Google Cloud CLI (https://cloud.google.com/sdk), or --dry_run"
    )
  return check_training(train_args, args.configs.resolve(), devices, args.num_slices) if train_args else ""
