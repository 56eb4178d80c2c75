"""The runner of the grid, with stand-ins for training and evaluation: order, crashes, kills, locks, a full disk."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from attention_zoo import files
from launch import ablation, ablation_devices, ablation_grid
from tests.launch import ablation_stub
from tests.launch.launch_helpers import ROOT, wait_for


class Place:
  """A current directory where `python -m attention_zoo.train` is a stand-in, and a grid in it."""

  def __init__(self, folder):
    self.folder, self.grid, self.started = folder, folder / "grid", []

  def plan(self, **rows):
    (self.folder / "plan.json").write_text(json.dumps(rows))

  def directory(self, row, seed=0):
    return self.grid / "rows" / row / f"seed_{seed}"

  def log(self, row):
    return (self.directory(row) / "log.txt").read_text()

  def history(self):
    path = self.folder / "history.txt"
    return path.read_text().splitlines() if path.exists() else []

  def steps(self, row):
    folder = self.directory(row) / "checkpoints"
    return max((int(path.name) for path in folder.iterdir()), default=0) if folder.is_dir() else 0

  def note(self, row):
    return ablation_grid.read_json(self.directory(row) / "row.json")

  def arguments(self, *more):
    return ["run", "--scale=tiny", f"--workdir={self.grid}", *more]

  def run(self, *more):
    return ablation.main(self.arguments(*more))

  def start(self, *more):
    """The runner in a process of its own."""
    command = [sys.executable, "-m", "launch.ablation", *self.arguments(*more)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    self.started.append(
      subprocess.Popen(command, cwd=self.folder, env=env, stderr=subprocess.PIPE, text=True)
    )
    return self.started[-1]

  def clean(self):
    for process in self.started:
      process.kill()
      process.communicate()
    for pid in ablation_grid.left_behind(self.grid):
      os.kill(pid, signal.SIGKILL)


@pytest.fixture
def place(tmp_path, monkeypatch):
  package = tmp_path / "attention_zoo"
  package.mkdir()
  (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'attention_zoo')!r})\n")
  (package / "train.py").write_text(ablation_stub.TRAIN)
  (package / "evaluate.py").write_text(ablation_stub.EVALUATE)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setenv("COLUMNS", "200")
  place = Place(tmp_path)
  place.plan()
  yield place
  place.clean()


def test_rows_run_once_and_share_the_vocabulary(place, capsys):
  assert place.run("--rows=b,base") == 0
  rows = ("base", "b_dk_16", "b_dk_32")
  assert place.history() == [f"{verb} {row} seed_0" for row in rows for verb in ("train", "evaluate")]
  for row in rows:
    assert (place.directory(row) / "tokenizer.model").read_text() == "learnt by base"
    (words, _, _) = json.loads((place.directory(row) / "args.json").read_text())
    assert f"--config={ROOT}/configs/ablation/{row}.py" in words and "--config.model.d_model=64" in words
    assert f"--config.data.cache_dir={place.grid}/data" in words
    assert f"$ {sys.executable} -m attention_zoo.train" in place.log(row)
    assert place.note(row)["hardware"] == [ablation_devices.find().description]
  # The second time there is only one seed to do.
  assert place.run("--rows=b,base") == 0 and len(place.history()) == 6
  assert place.run("--rows=b_dk_16", "--seeds=2") == 0
  assert place.history()[6:] == ["train b_dk_16 seed_1", "evaluate b_dk_16 seed_1"]
  assert "1 of 2 rows" not in capsys.readouterr().err
  assert ablation.main(["status", f"--workdir={place.grid}"]) == 0
  out = capsys.readouterr().out
  assert "no runner is at work" in out and "b_dk_16 seed 1" in out and out.count("done") == 4
  assert out.count("not run") == 17


def test_a_crash_is_reported_and_the_others_run(place, monkeypatch, capsys):
  place.plan(a_heads_1={"crash": 2}, a_heads_4={"bad": 1})
  assert place.run("--rows=a") == 1
  err = capsys.readouterr().err
  assert "a_heads_1: failed, training: exit code 1: RuntimeError: the roof is on fire (see " in err
  assert (
    "a_heads_4: failed, training: exit code 2: error: there is neither x.en nor x.en.gz. Found: none" in err
  )
  assert "2 of 4 rows are done" in err and "failed: a_heads_1, a_heads_4;" in err
  assert "Traceback" in place.log("a_heads_1")
  assert ablation.main(["status", f"--workdir={place.grid}"]) == 0
  assert "the roof" in capsys.readouterr().out
  # Put right, the rows that failed go on where they were, and no other runs again.
  place.plan()
  before = len(place.history())
  monkeypatch.setattr(ablation_devices, "_processor", lambda: "another machine")
  assert place.run("--rows=a") == 0
  machines = place.note("a_heads_1")["hardware"]
  assert len(machines) == 2 and machines[1].endswith(" of another machine")
  assert len(place.note("a_heads_16")["hardware"]) == 1
  assert place.history()[before:] == [
    f"{v} a_heads_{h} seed_0" for h in (1, 4) for v in ("train", "evaluate")
  ]
  assert "starting at step 1\n" in place.log("a_heads_1")


def test_a_half_trained_row_that_was_evaluated_is_not_done(place, capsys):
  place.plan(base={"evaluated": 2})
  assert place.run("--rows=base") == 1
  assert "base: failed, evaluating: wrote no result of step 1000 (see " in capsys.readouterr().err
  place.plan()
  assert place.run("--rows=base") == 0 and len(place.history()) == 4


def test_a_killed_row_goes_on_from_its_checkpoint(place, capsys):
  place.plan(base={"kill": 1})
  assert place.run("--rows=base") == 0
  assert "base: killed by SIGKILL while training; once more" in capsys.readouterr().err
  assert "starting at step 0\n" in place.log("base") and "starting at step 1\n" in place.log("base")


def test_a_row_that_is_always_killed_fails(place, capsys):
  place.plan(base={"kill": 99})
  assert place.run("--rows=base,big") == 1
  told = "base: failed, training: killed by SIGKILL, 3 times without a newer checkpoint (see "
  assert told in capsys.readouterr().err
  # The death after the first checkpoint, and three in a row without another.
  assert place.history() == ["train base seed_0"] * 4 + ["train big seed_0", "evaluate big seed_0"]


def test_a_preemption_is_no_failure(place, capsys):
  place.plan(base={"kill": 5, "preempted": True})
  assert place.run("--rows=base") == 0 and place.history().count("train base seed_0") == 6
  assert "base: preempted while training; once more" in capsys.readouterr().err


def test_a_row_that_the_user_stopped_is_not_started_again(place, capsys):
  place.plan(base={"kill": 1, "interrupted": True})
  assert place.run("--rows=base") == 1
  assert place.history() == ["train base seed_0"] and "base: stopped" in capsys.readouterr().err
  assert place.run("--rows=base") == 0  # the same command goes on


def test_an_evaluation_that_is_always_killed_is_not_said_to_be_training(place, capsys):
  place.plan(base={"kill_evaluation": True})
  assert place.run("--rows=base") == 1
  err = capsys.readouterr().err
  assert "base: failed, evaluating: killed by SIGKILL, 3 times" in err and "training failed" not in err


def test_a_second_start_is_refused_and_names_the_process(place, capsys):
  place.plan(base={"steps": 10_000, "sleep": 0.05})
  first = place.start("--rows=base")
  try:
    wait_for("the first step", lambda: place.steps("base"), 300)
    assert place.run("--rows=big") == 2
    err = capsys.readouterr().err
    assert (
      f"is being run already, by process {first.pid} " in err and "launch.ablation run --scale=tiny" in err
    )
    assert not place.directory("big").exists()
    assert ablation.main(["status", f"--workdir={place.grid}"]) == 0
    out = capsys.readouterr().out
    assert f"run by process {first.pid} " in out and "training" in out and "/1000" in out
  finally:
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=300)
  assert first.returncode == 130 and "stopping: rows save what they have" in err
  assert place.note("base")["status"] == "stopped" and "saved at step" in place.log("base")
  stopped = place.steps("base")
  place.plan(base={"steps": stopped + 2})
  assert place.run("--rows=base") == 0 and f"starting at step {stopped}\n" in place.log("base")


def test_a_killed_runner_is_taken_over_from(place, capsys):
  """Its training lives on; the next start tells it to save, and goes on."""
  place.plan(base={"steps": 10_000, "sleep": 0.05})
  first = place.start("--rows=base")
  wait_for("the first step", lambda: place.steps("base"), 300)
  orphan = place.note("base")["pid"]
  first.kill()
  first.communicate(timeout=300)
  os.kill(orphan, 0)  # alive
  assert place.run("--rows=big") == 0 and place.note("base")["status"] == "stopped"
  place.plan(base={"steps": 1})
  assert place.run("--rows=base") == 0
  err = capsys.readouterr().err
  assert f"process {orphan}, left behind by runner {first.pid}, is told to save and stop" in err
  assert "saved at step" in place.log("base") and place.history()[-1] == "evaluate base seed_0"


def test_a_lock_that_only_a_strange_process_holds_is_respected(place):
  place.grid.mkdir()
  gone = subprocess.Popen(["true"])
  gone.wait()
  (place.grid / "lock").write_text(f"{gone.pid} {os.uname().nodename} since yesterday: x\n")
  with open(place.grid / "lock") as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ablation_grid.UserError, match=f"runner {gone.pid} is gone, but processes .* go on"):
      ablation_grid.take_lock(place.grid, "command", print, patience=0.5)
  ablation_grid.take_lock(place.grid, "command", print).close()


def test_a_second_signal_kills(place):
  place.plan(base={"steps": 10_000, "sleep": 0.05, "deaf": True})
  runner = place.start("--rows=base,big")
  wait_for("the first step", lambda: place.steps("base"), 300)
  runner.send_signal(signal.SIGTERM)
  assert any("stopping" in line for line in runner.stderr) and runner.poll() is None
  runner.send_signal(signal.SIGHUP if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else signal.SIGINT)
  runner.communicate(timeout=300)
  assert runner.returncode == 143 and not place.directory("big").exists()
  assert place.note("base")["status"] == "stopped"


@pytest.mark.parametrize("who", ["training", "the runner"])
def test_a_full_disk_stops_the_grid_and_loses_nothing(place, capsys, who):
  if who == "training":
    place.plan(a_heads_4={"full": 2})
  else:
    place.directory("a_heads_4").mkdir(parents=True)
    (place.directory("a_heads_4") / "log.txt").symlink_to("/dev/full")
  assert place.run("--rows=a") == 1
  err = capsys.readouterr().err
  assert (
    "no room on the disk: " in err
    and "No space left on device" in err
    and "run the same command again" in err
  )
  assert "1 of 4 rows are done" in err and not place.directory("a_heads_16").exists()
  place.plan()
  if who == "the runner":
    (place.directory("a_heads_4") / "log.txt").unlink()
  assert place.run("--rows=a") == 0
  assert f"starting at step {1 if who == 'training' else 0}\n" in place.log("a_heads_4")


def test_a_disk_without_room_for_the_vocabulary_stops_the_grid(place, capsys, monkeypatch):
  def full(path, data, write=files.write_bytes):
    write("/dev/full" if path == place.grid / "tokenizer.model" else path, data)

  with monkeypatch.context() as patch:
    patch.setattr(files, "write_bytes", full)
    assert place.run("--rows=base,big") == 1
  assert "no room on the disk: cannot write /dev/full: No space left on device" in capsys.readouterr().err
  assert place.note("base")["status"] == "stopped" and not place.directory("big").exists()
  assert place.run("--rows=base,big") == 0


def test_a_log_on_the_full_disk_does_not_end_the_runner(place):
  place.plan(a_heads_1={"full": 2})
  with open("/dev/full", "w") as full:
    command = [sys.executable, "-m", "launch.ablation", *place.arguments("--rows=a")]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=place.folder, env=env, stderr=full, timeout=300)
  assert place.note("a_heads_1")["status"] == "stopped" and not place.directory("a_heads_4").exists()


def test_a_failure_where_nothing_is_free_is_a_full_disk(place, capsys, monkeypatch):
  """A library may not say why it could not write."""
  place.plan(base={"crash": 1})
  monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
  assert place.run("--rows=base,big") == 1
  assert "no room on the disk: base: RuntimeError: the roof" in capsys.readouterr().err


def test_jobs_run_side_by_side_on_cores_of_their_own(place):
  cores = sorted(os.sched_getaffinity(0))
  place.plan(base={"await": f"{place.directory('a_heads_1')}/eval/dev-latest.json"})
  assert place.run("--rows=base,big,a_heads_1", "--jobs=2") == 0
  history = place.history()
  # a_heads_1 waited for base's vocabulary, and was done before base.
  assert history[:2] == ["train base seed_0", "train a_heads_1 seed_0"]
  assert history.index("evaluate a_heads_1 seed_0") < history.index("evaluate base seed_0")
  assert (place.directory("a_heads_1") / "tokenizer.model").read_text() == "learnt by base"
  used = [json.loads((place.directory(row) / "args.json").read_text()) for row in ("base", "a_heads_1")]
  if len(cores) > 1:
    assert not set(used[0][2]) & set(used[1][2])
  assert [threads["NPROC"] for _, threads, _ in used] == [str(len(own)) for _, _, own in used]


def test_another_grid_in_the_same_place_is_refused(place, capsys):
  assert place.run("--rows=base") == 0
  capsys.readouterr()
  assert place.run("--rows=base", "--config.train.steps=7") == 2
  assert "config.train.steps: 1000 -> 7" in capsys.readouterr().err
  assert ablation.main(["run", f"--workdir={place.grid}", "--rows=base"]) == 2
  assert "scale: tiny -> paper" in capsys.readouterr().err


def test_the_same_grid_in_other_words_goes_on(place, capsys):
  text, moved = place.folder / "text", place.folder / "moved"
  text.mkdir()
  for name in ("train.en", "train.de", "dev.en", "dev.de"):
    (text / name).write_text("text\n")
  assert place.run("--rows=base", "--data.dir=text") == 0
  assert place.run("--rows=base", "--data.dir=text/", "--config.model.dropout=0.1") == 0
  assert len(place.history()) == 2
  text.rename(moved)
  assert place.run("--rows=big", "--data.dir=moved") == 0
  assert f"--config.data.dir={moved}" in place.log("big")
  # A row that has not begun knows the grid's text as well.
  (moved / "train.en").write_text("another text\n")
  assert place.run("--rows=a_heads_1", "--data.dir=moved") == 1
  assert "the training text is not the one" in capsys.readouterr().err
  assert ablation_grid.open_grid(place.grid).settings["data"] == "text"


def test_a_grid_that_has_trained_nothing_may_change(place):
  place.plan(base={"crash": 1})
  assert place.run("--rows=base") == 1 and (place.grid / "tokenizer.model").exists()
  assert place.run("--rows=big", "--config.data.vocab_size=300") == 0
  assert (place.directory("big") / "tokenizer.model").read_text() == "learnt by big"
  assert not place.directory("base").exists()
  assert len(ablation_grid.open_grid(place.grid).settings["commands"]) == 1
  shutil.rmtree(place.directory("big") / "checkpoints")  # to save room: the result is still of those settings
  assert place.run("--rows=big") == 2


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["run", "--rows=z"], "no row or group is called 'z'"),
    (["run", "--seeds=0"], "--seeds and --jobs must be at least 1"),
    (["run", "--row=a"], "did you mean --rows?"),
    (["run", "--config.model.d_kk=8"], "did you mean model.d_k?"),
    (["run", "stray"], "cannot use 'stray'"),
    (["status"], "holds no grid"),
    (["report"], "holds no grid"),
    (["status", "--config.train.steps=1"], "cannot use"),
  ],
)
def test_bad_input(place, capsys, words, message):
  assert ablation.main([*words, f"--workdir={place.grid}"]) == 2
  assert message in capsys.readouterr().err and not place.grid.exists()


def test_a_bucket_is_no_place_to_run(place, capsys):
  assert ablation.main(["run", "--workdir=gs://b/grid"]) == 2
  assert "must be a local directory" in capsys.readouterr().err


def test_a_workdir_that_cannot_be(place, capsys):
  (place.folder / "file").touch()
  assert ablation.main(["run", f"--workdir={place.folder}/file/grid"]) == 2
  assert "cannot write to" in capsys.readouterr().err


def test_the_live_table_on_a_terminal(place, monkeypatch, capsys):
  monkeypatch.setenv("TTY_COMPATIBLE", "1")
  assert place.run("--rows=base") == 0
  err = capsys.readouterr().err
  assert "PPL" in err and "1000/1000" in err and "25.0" in err
