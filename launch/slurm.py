"""Trains on a Slurm cluster: writes a batch script and submits it.

  python -m launch.slurm --name=base --nodes=2 --tasks_per_node=8 --gpus_per_task=1 --cpus_per_task=8 \\
      --time=12:00:00 --partition=gpu -- --config=configs/transformer_base.py --workdir=/shared/runs/base

What follows `--` goes to `python -m attention_zoo.train` as it stands. Run it where training should run: the
job changes to the current directory and uses the Python of this command (the nodes must see both, and the
work directory). Look first with --dry_run, which prints the script and submits nothing.

What the job does:
  - srun starts one process per task; jax.distributed finds the others through Slurm's environment.
  - --notice seconds before the time limit training gets SIGTERM, saves and exits with 75, and the job is
    requeued: it goes on where it was, in as many pieces as the time limit needs.
  - After a crash it starts again at once, until --max_failures failures in a row without a newer checkpoint.
    A lost node and preemption by Slurm itself requeue the job (--requeue).
  - `scancel JOB` ends it: training saves and the job is not requeued. Slurm grants KillWait seconds (30
    unless your cluster says otherwise) before it kills; what was not saved then is trained again next time.

GPUs: either one process per GPU (--tasks_per_node=8 --gpus_per_task=1) or one process for all GPUs of a node
(--tasks_per_node=1 --gpus_per_task=8). All tasks see all GPUs of their node, which JAX counts on under Slurm.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import restart
from launch.restart import BAD_INPUT

# What may stand in an #SBATCH line: nothing that a shell or sbatch's own option parser would treat specially.
PLAIN = re.compile(r"[A-Za-z0-9_.,:@+=/\[\]*&|()-]+")

SCRIPT = """\
#!/bin/bash
# Written by python -m launch.slurm. Submit it again with: sbatch {path}
{options}

cd {directory} || exit {bad_input}
{environment}
# scancel, or preemption by Slurm: training saves; whether the job comes back is Slurm's decision, not ours.
trap 'cancelled=yes' TERM

{python} {restart} --srun --max_failures={max_failures} -- {train}
code=$?

# Training saved and stopped because of the time limit: the next piece starts from there.
if [ "$code" = {preempted} ] && [ -z "${{cancelled:-}}" ]; then
  scontrol requeue "$SLURM_JOB_ID" && sleep 60  # the requeue ends this script
fi
exit "$code"
"""


def check_plain(flag, value):
  """Raises UserError for text that an option line could misread."""
  if value is not None and not PLAIN.fullmatch(value):
    raise UserError(
      f"--{flag}: {value!r} may hold letters, digits and _.,:@+=/[]*&|()- only; "
      "Slurm's option lines have no safe way to quote anything else"
    )


def batch_script(args, train_args, path):
  """Returns the text of the batch script; raises UserError where a setting cannot work."""
  if args.gpus_per_task > 1 and args.tasks_per_node > 1:
    raise UserError(
      f"--tasks_per_node={args.tasks_per_node} --gpus_per_task={args.gpus_per_task}: use one task per GPU "
      f"(--tasks_per_node={args.tasks_per_node * args.gpus_per_task} --gpus_per_task=1) or one task per node "
      f"(--tasks_per_node=1 --gpus_per_task={args.tasks_per_node * args.gpus_per_task})"
    )
  for flag in ("nodes", "tasks_per_node", "cpus_per_task", "notice", "max_failures"):
    if getattr(args, flag) < 1:
      raise UserError(f"--{flag}={getattr(args, flag)} must be at least 1")
  options = {
    "job-name": args.name,
    "nodes": args.nodes,
    "ntasks-per-node": args.tasks_per_node,
    "cpus-per-task": args.cpus_per_task,
    "gpus-per-node": args.tasks_per_node * args.gpus_per_task or None,
    "time": args.time,
    "signal": f"TERM@{args.notice}",  # without "B:": to the tasks, not to this script
    "partition": args.partition,
    "account": args.account,
    "qos": args.qos,
    "constraint": args.constraint,
    "output": f"{path.parent}/{args.name}-%j.log",
  }
  for flag in ("name", "time", "partition", "account", "qos", "constraint"):
    check_plain(flag, getattr(args, flag))
  check_plain("log_dir", str(path.parent))
  lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
  lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append", *(f"#SBATCH {extra}" for extra in args.sbatch)]
  for extra in args.sbatch:
    if not re.fullmatch(r"--[a-z-]+(=" + PLAIN.pattern + ")?", extra):
      raise UserError(f"--sbatch={extra!r} must look like --sbatch=--exclusive or --sbatch=--mem=64G")
  root = shlex.quote(str(pathlib.Path(__file__).parents[1]))
  environment = [
    f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}"{root}  # where the restarter finds the package',
    'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # since 22.05 srun does not take it over by itself'
  ]
  if args.gpus_per_task > 1:
    devices = ",".join(map(str, range(args.gpus_per_task)))
    environment.append(
      f"export JAX_LOCAL_DEVICE_IDS={devices}  # JAX takes one GPU per Slurm task unless told otherwise"
    )
  return SCRIPT.format(
    path=shlex.quote(str(path)),
    options="\n".join(lines),
    directory=shlex.quote(os.getcwd()),
    environment="\n".join(environment) + "\n",
    python=shlex.quote(args.python),
    # By path: launch/ may not be importable on the nodes.
    restart=shlex.quote(os.path.abspath(restart.__file__)),
    max_failures=args.max_failures,
    train=shlex.join(train_args),
    preempted=restart.PREEMPTED,
    bad_input=BAD_INPUT,
  )


def submit(script, path):
  """Writes the script and hands it to sbatch. Returns an exit code."""
  if shutil.which("sbatch") is None:
    raise UserError("sbatch is not on the PATH: run this on a login node of the cluster, or use --dry_run")
  files.write_bytes(path, os.fsencode(script))  # arguments as they came, in whatever encoding
  result = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
  if result.returncode:
    print(f"error: sbatch refused {path}: {result.stderr.strip()}", file=sys.stderr)
    return 1
  job = result.stdout.strip().partition(";")[0]
  print(
    f"job {job}, script {path}\n"
    f"  watch:  squeue -j {job}; tail -F {shlex.quote(f'{path.parent}/{path.stem}-{job}.log')}\n"
    f"  stop:   scancel {job}"
  )
  return 0


def make_parser():
  parser = argparse.ArgumentParser(
    prog="python -m launch.slurm",
    description=__doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    usage="%(prog)s [flags] -- --config=FILE --workdir=DIR ...",
  )
  parser.add_argument(
    "--name", default="attention_zoo", help="job name, and name of script and log (%(default)s)"
  )
  parser.add_argument("--nodes", type=int, default=1, help="machines (%(default)s)")
  parser.add_argument("--tasks_per_node", type=int, default=1, help="processes per machine (%(default)s)")
  parser.add_argument(
    "--gpus_per_task", type=int, default=0, help="GPUs per process; 0: CPU only (%(default)s)"
  )
  parser.add_argument("--cpus_per_task", type=int, default=1, help="CPU cores per process (%(default)s)")
  parser.add_argument(
    "--time",
    default="24:00:00",
    metavar="[D-]HH:MM:SS",
    help="time limit of one piece; longer training is requeued (%(default)s)",
  )
  parser.add_argument(
    "--notice",
    type=int,
    default=120,
    metavar="SECONDS",
    help="ask training to save this long before the limit; Slurm may be a minute early (%(default)s)",
  )
  parser.add_argument("--partition", help="where to run; the cluster's default if not given (see sinfo)")
  parser.add_argument("--account", help="account to charge")
  parser.add_argument("--qos", help="quality of service")
  parser.add_argument("--constraint", help="node features, for example a100|h100")
  parser.add_argument(
    "--sbatch",
    action="append",
    default=[],
    metavar="--OPTION[=VALUE]",
    help="any further sbatch option, may be repeated: --sbatch=--exclusive --sbatch=--mem=64G",
  )
  parser.add_argument(
    "--max_failures",
    type=int,
    default=3,
    help="give up after this many failures in a row without a newer checkpoint (%(default)s)",
  )
  parser.add_argument("--log_dir", default="runs/slurm", help="directory for script and logs (%(default)s)")
  parser.add_argument(
    "--python",
    type=os.path.expanduser,  # files.expand would make python of ./python
    default=sys.executable,
    help="Python to use on the nodes (%(default)s)",
  )
  parser.add_argument("--dry_run", action="store_true", help="print the script, submit nothing")
  return parser


def main(argv=None):
  try:
    own, train_args, _ = restart.split_command(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(own)
    restart.need_training(train_args)
    if "/" in args.name:
      raise UserError(f"--name={args.name!r} must not hold a slash: it names the script and the log")
    path = pathlib.Path(os.path.abspath(files.expand(args.log_dir))) / f"{args.name}.sbatch"
    script = batch_script(args, train_args, path)
    if args.dry_run:
      print(script, end="")
      return 0
    return submit(script, path)
  except (UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
  restart.speak_utf8()
  sys.exit(main())
