"""Where a grid reads and writes."""

import os
import subprocess
import sys

from launch import ablation, ablation_grid, ablation_rows, restart


def test_a_home_folder_is_found(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  arguments = ["run", "--workdir=~/grid", "--data.dir=~/text"]
  parsed = ablation.make_parser().parse_args(arguments)
  assert (parsed.workdir, parsed.data_dir) == (f"{tmp_path}/grid", f"{tmp_path}/text")
  fields = ablation_rows.base_fields("tiny", "", "", ["data.dir=~/text"])
  assert fields["data.dir"] == f"{tmp_path}/text"
  (tmp_path / "run" / "checkpoints" / "20").mkdir(parents=True)
  assert restart.newest_checkpoint("~/run") == 20


def test_what_is_written_leaves_neighbours_and_links_alone(tmp_path):
  real = tmp_path / "elsewhere.json"
  real.write_text("{}")
  (tmp_path / "row.json").symlink_to(real)
  (tmp_path / ".row.json.tmp").write_text("mine")
  ablation_grid.write_json(tmp_path / "row.json", {"a": 1})
  assert (tmp_path / "row.json").is_symlink() and ablation_grid.read_json(real) == {"a": 1}
  assert (tmp_path / ".row.json.tmp").read_text() == "mine"


def test_files_are_read_and_written_alike_under_every_locale(tmp_path):
  program = (
    "import pathlib, sys\n"
    "from launch import ablation_grid\n"
    "place, command = pathlib.Path(sys.argv[1]), '\\u6f22' + sys.argv[2]\n"
    "with ablation_grid.take_lock(place, command, print):\n"
    "  assert ablation_grid.locked(place).endswith(': ' + command)\n"
    "assert ablation_grid.read_json(place / 'a.json') == '\\xe4'\n"
  )
  (tmp_path / "a.json").write_text('"ä"', encoding="utf-8")
  subprocess.run(
    [sys.executable, "-c", program, tmp_path, b"\xff"], check=True, cwd=restart.__file__.rpartition("/launch/")[0],
    env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
  )  # fmt: skip
  assert (tmp_path / "lock").read_bytes().endswith("\u6f22".encode() + b"\xff\n")
