"""The ablation grid: Table 3 of "Attention Is All You Need", rows A to E, trained, measured and held against the paper.

  python -m launch.ablation run    --workdir=DIR --scale=tiny                        20 rows on the phrasebook
  python -m launch.ablation run    --workdir=DIR --scale=tiny --rows=base,a_heads_1 --data.dir=TEXT
  python -m launch.ablation run    --workdir=DIR --scale=tiny_long --data.dir=TEXT   four times as long as tiny
  python -m launch.ablation run    --workdir=DIR --rows=a,c_layers_2 --seeds=3 --jobs=4     the paper's size, WMT14
  python -m launch.ablation status --workdir=DIR
  python -m launch.ablation report --workdir=DIR                                     report.md .html .png, results.json

Each row is a file in configs/ablation/, trained and evaluated in processes of its own, in DIR/rows/ROW/seed_N, where
log.txt holds what they said. Run again with the same command, finished rows are skipped and all others go on where
they were; Ctrl-C stops and saves. A row that fails does not stop the others. --jobs rows run side by side, on their
shares of the devices. How `small`, `tiny` and `tiny_long` shrink the grid: launch/ablation_rows.py.

--data.dir=TEXT holds parallel text: train.en, train.de, and val or dev or ... for the dev set (.gz too); without it
the smaller scales use the embedded phrasebook, and --data=tfds:NAME a data set of TensorFlow Datasets. Further flags
--config.GROUP.FIELD=VALUE change base, and every row relative to it: --config.data.tokenized=true for text that is
tokenised already, --config.train.steps=2000 for longer training of all.

--dry_run prints the commands and runs none, also as they would go to one Cloud TPU slice a row.

Exit codes: 0 all rows are done; 1 some failed, or the disk is full; 2 bad input; 130 Ctrl-C; 143 SIGTERM.
"""

import argparse
import contextlib
import difflib
import pathlib
import shlex
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import ablation_devices, ablation_grid, ablation_rows, ablation_run, restart
from launch.restart import BAD_INPUT


def fitted(entries, lines):
  """As many entries as there are lines for, and what the others are: the waiting go first, the failed last."""
  gone = {"waiting": 0, "done": 0, "failed": 0}
  for status in gone:
    for entry in [entry for entry in reversed(entries) if entry[1].status == status]:
      if len(entries) > lines:
        entries = [other for other in entries if other is not entry]
        gone[status] += 1
  return entries, ", ".join(f"{count} more {status}" for status, count in gone.items() if count)


def table(entries, caption="", live=False):
  """entries: (name, Progress, steps). A rich table, in the order of the grid. live: one line a row."""
  caption = "; ".join(filter(None, (caption, "PPL, perplexity, and BLEU are those of the dev set")))
  out = Table(caption=caption, caption_justify="left", expand=live, pad_edge=False)
  out.add_column("Row")
  out.add_column("Status", ratio=1, no_wrap=live, overflow="ellipsis" if live else "fold")
  for head in ("Step", "Loss", "Left", "PPL", "BLEU"):
    out.add_column(head, justify="right")
  for name, p, steps in entries:
    style = {"failed": "red", "done": "green", "training": "bold", "evaluating": "bold"}.get(p.status, "dim")
    out.add_row(
      name,
      Text(f"{p.status}: {p.message}" if p.message else p.status),  # what looks like markup is none
      f"{p.step}/{steps}" if p.step else "",
      "" if p.loss is None else f"{p.loss:.3f}",
      _duration(p.seconds_left),
      "" if p.perplexity is None else f"{p.perplexity:.2f}",
      "" if p.bleu is None else f"{p.bleu:.1f}",
      style=style,
    )
  return out


def _duration(seconds):
  if seconds is None:
    return ""
  seconds = int(seconds)
  return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class View:
  """A live table on a terminal, lines elsewhere."""

  def __init__(self, every=60.0):
    self._console = Console(stderr=True)
    self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
    self._every = 1.0 if self._live else every
    self._next = 0.0

  def __enter__(self):
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *_):
    if self._live:
      self._live.stop()

  def say(self, text):
    with contextlib.suppress(OSError):  # stderr may be a file on the full disk that is to be told of
      now = time.strftime("%H:%M:%S")
      self._console.print(f"{now} {text}", markup=False, highlight=False, soft_wrap=True)

  def update(self, jobs, now=False):
    if time.monotonic() < self._next and not now:
      return
    self._next = time.monotonic() + self._every
    entries = [(job.name, _progress(job), job.steps) for job in jobs]
    if self._live:
      self._live.update(table(*fitted(entries, self._console.size.height - 7), live=True), refresh=True)
      return
    for name, p, steps in entries:
      if p.status == "training" and p.loss is not None:
        left = f", {_duration(p.seconds_left)} left" if p.seconds_left is not None else ""
        self.say(f"{name}: step {p.step}/{steps}, loss {p.loss:.3f}{left}")


def _progress(job):
  found = ablation_grid.progress(job.directory, job.steps, True)
  if job.state == "waiting" and found.status != "done":
    found.status, found.message = "waiting", ""
  return found


def run(args, overrides, argv):
  rows = ablation_rows.choose(args.rows)
  if args.seeds < 1 or args.jobs < 1:
    raise UserError("--seeds and --jobs must be at least 1")
  fields = ablation_rows.base_fields(args.scale, args.data, args.data_dir, overrides)
  wanted = [(row, seed) for seed in range(args.seeds) for row in rows]
  for row in rows:
    ablation_rows.row_fields(row, fields)  # complains before anything is begun
  if args.dry_run:
    return dry_run(args, fields, wanted)
  if "://" in args.workdir:
    raise UserError(
      f"--workdir={args.workdir}: rows run here, so it must be a local directory (but for --dry_run)"
    )
  devices = ablation_devices.find()
  slots = ablation_devices.partition(devices, args.jobs)
  workdir = pathlib.Path(args.workdir).absolute()
  command = ablation_grid.command_line(argv)
  data = args.data_dir or fields.get("data.source") or "as in the paper"
  with View() as view:
    with _writing(workdir):
      workdir.mkdir(parents=True, exist_ok=True)
      lock = ablation_grid.take_lock(workdir, command, view.say)
    with lock:
      with _writing(workdir):
        grid = ablation_grid.make_grid(workdir, args.scale, data, fields, command)
      jobs = [ablation_run.Job(grid, row, seed, devices.description) for row, seed in wanted]
      for job in jobs:
        if job.result:
          job.state = "done"
      if "base" not in rows and not ablation_run.Job(grid, "base", 0).result:
        view.say("base is not among the rows: the report will have no differences from it")
      code = ablation_run.Runner(jobs, slots, lock, view).run()
      view.update(jobs, now=True)
      counts = {state: [job.name for job in jobs if job.state == state] for state in ("done", "failed")}
      view.say(f"{len(counts['done'])} of {len(jobs)} rows are done")
      if counts["failed"]:
        view.say(
          f"failed: {', '.join(counts['failed'])}; `status` says why; run again, they go on where they were"
        )
  return code


@contextlib.contextmanager
def _writing(workdir):
  try:
    yield
  except OSError as error:
    raise UserError(f"cannot write to {workdir}: {error.strerror or error}") from error


def dry_run(args, fields, wanted):
  """Prints the commands, ready to be pasted: those for here, then those for a TPU slice a row."""
  remote = "://" in args.workdir
  workdir = args.workdir.rstrip("/")
  settings = {"scale": args.scale, "data": "", "fields": fields}
  if not remote:
    print("# Here")
    grid = ablation_grid.Grid(pathlib.Path(workdir).absolute(), settings)
    for row, seed in wanted:
      for command in ablation_run.commands(row, seed, grid, grid.directory(row, seed), grid.cache):
        print(shlex.join(["python", *command[1:]]))
    print()
  print("# On one Cloud TPU slice a row. Set these first; evaluation runs on any machine that reads the bucket.")
  print("# `report` covers rows that were run here only.")
  bucket = shlex.quote("/".join(workdir.split("/")[:3])) if remote else "gs://your-bucket"
  print(f"ZONE=us-west4-a TYPE=v5litepod-8 BUCKET={bucket}")
  target = shlex.quote(f"{workdir}/rows") if remote else '"$BUCKET"/rows'  # quoted for the shell
  copied = ""
  if (source := fields.get("data.source", "tfds")) == "text":
    print(f'gcloud storage cp {shlex.quote(fields["data.dir"])}/* "$BUCKET"/text/')
    copied = ' --data="$BUCKET"/text'
  elif source.startswith("tfds"):
    print('# "$BUCKET"/tfds holds what `tfds build` has prepared: launch/README.md, step 3')
    copied = ' --data="$BUCKET"/tfds'
  if copied:
    fields = fields | {"data.dir": "data"}
    print("# Where rows are evaluated: the data, in the place that their configs name.")
    print(f"mkdir -p data && gcloud storage rsync --recursive {copied.removeprefix(' --data=')} data")
  for row, seed in wanted:
    name = f"ablation-{row}-{seed}".replace("_", "-")
    directory = f"{target}/{row}/seed_{seed}"
    flags = shlex.join(ablation_rows.flags(row, fields, seed, ""))
    print(
      f'python -m launch.cloud_tpu run {name} --zone="$ZONE" --accelerator_type="$TYPE" --spot --until_done '
      f"--delete_after{copied} -- --config=configs/ablation/{row}.py --workdir={directory} {flags}"
    )
    print(f"python -m attention_zoo.evaluate --workdir={directory} --checkpoint=latest --split=dev")
  return 0


def status(args):
  grid = ablation_grid.open_grid(args.workdir)
  holder = ablation_grid.locked(grid.workdir)
  entries = []
  for row in ablation_rows.ROWS:
    try:
      steps = ablation_rows.row_fields(row, grid.fields)["train.steps"]
    except UserError as error:
      entries.append((row, ablation_grid.Progress("not run", str(error)), 0))
      continue
    for seed in grid.seeds(row) or [0]:
      found = ablation_grid.progress(grid.directory(row, seed), steps, bool(holder))
      entries.append((row if seed == 0 else f"{row} seed {seed}", found, steps))
  console = Console()
  console.print(table(entries))
  text = f"run by process {holder}" if holder else "no runner is at work"
  console.print(text, markup=False, highlight=False, soft_wrap=True)
  return 0


def report(args):
  from launch import ablation_report

  grid = ablation_grid.open_grid(args.workdir)
  with _writing(grid.workdir):
    paths = ablation_report.write(grid)
  print(*paths, sep="\n")
  return 0


def _path(text):
  """What --workdir and --data.dir were given, with `~` replaced."""
  return str(files.expand(text)) if text and files.is_local(text) else text


def make_parser():
  parser = argparse.ArgumentParser(
    prog="python -m launch.ablation",
    description=__doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  verbs = parser.add_subparsers(dest="verb", required=True, metavar="run|status|report")
  common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  common.add_argument("--workdir", required=True, type=_path, metavar="DIR", help="the grid's directory")
  add = lambda name, text: verbs.add_parser(
    name, parents=[common], help=text, description=text, allow_abbrev=False
  )
  running = add("run", "train and evaluate rows; finished ones are skipped, all others go on where they were")
  running.add_argument(
    "--rows", default="all", metavar="ROWS", help="all, or groups and names: a,b_dk_16 (%(default)s)"
  )
  running.add_argument("--scale", default="paper", choices=ablation_rows.SCALES, help="(%(default)s)")
  running.add_argument(
    "--seeds", type=int, default=1, metavar="N", help="train each row N times (%(default)s)"
  )
  running.add_argument(
    "--data.dir", dest="data_dir", type=_path, default="", metavar="TEXT", help="directory of parallel text"
  )
  running.add_argument("--data", default="", metavar="DATA", help="phrasebook, or tfds:NAME")
  running.add_argument("--jobs", type=int, default=1, metavar="N", help="rows side by side (%(default)s)")
  running.add_argument("--dry_run", action="store_true", help="print the commands, run none")
  add("status", "how far each row is")
  add("report", "write report.md, report.html, report.png and results.json into DIR")
  return parser


def main(argv=None):
  argv = sys.argv[1:] if argv is None else argv
  args, rest = make_parser().parse_known_args(argv)
  try:
    overrides = [
      word.removeprefix("--config.") for word in rest if word.startswith("--config.") and args.verb == "run"
    ]
    if other := [word for word in rest if word.removeprefix("--config.") not in overrides]:
      known = ("--rows", "--scale", "--seeds", "--data.dir", "--data", "--workdir", "--jobs", "--dry_run")
      near = difflib.get_close_matches(other[0].partition("=")[0], known, n=1)
      raise UserError(f"cannot use {other[0]!r}" + (f" (did you mean {near[0]}?)" if near else ""))
    if args.verb == "run":
      return run(args, overrides, argv)
    return {"status": status, "report": report}[args.verb](args)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
  restart.speak_utf8()
  sys.exit(main())
