"""The commands in launch/'s README and help texts are accepted, in a dry run."""

import re
import shlex

import pytest

from launch import cloud_tpu, slurm
from tests.launch.launch_helpers import ROOT


def commands(text):
  """Commands of two modules in a text, continuation lines joined, with examples in place of placeholders."""
  for line in text.replace("\\\n", " ").splitlines():
    if re.match(r"\s*(python -m launch\.(?:cloud_tpu|slurm) .*--[\w ].*)", line):
      for placeholder, example in (("NAME", "zoo"), ("ZONE", "us-west4-a"), ("FILE", "configs/quickstart.py")):
        line = line.replace(placeholder, example)
      yield line.strip()


README = (ROOT / "launch/README.md").read_text()
FOUND = [*commands(README), *commands(cloud_tpu.__doc__), *commands(slurm.__doc__)]


def test_commands_are_found():
  assert len(FOUND) == 2 + 7 + 1


@pytest.mark.parametrize("command", FOUND)
def test_command_is_accepted(command, capsys):
  _, _, module, *flags = shlex.split(command)
  main = {"launch.cloud_tpu": cloud_tpu.main, "launch.slurm": slurm.main}[module]
  verb = [flags.pop(0)] if module == "launch.cloud_tpu" else []
  assert main([*verb, "--dry_run", *(flag for flag in flags if flag != "--dry_run")]) == 0
  assert capsys.readouterr().out


def test_readme_is_one_page():
  assert len(README.splitlines()) <= 100
