"""Files are written whole or not at all, and stay what they were: devices, links, modes, and their neighbours."""

import os
import pathlib
import stat

import pytest

from attention_zoo import files
from attention_zoo.errors import UserError


def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
  path = tmp_path / "a"
  path.write_text("before")
  with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
    temporary.write_text("half")
    raise ZeroDivisionError
  assert path.read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_a_neighbour_of_any_name_stays(tmp_path):
  (tmp_path / "a.tmp").write_text("mine")
  files.write_text(tmp_path / "a", "new")
  assert (tmp_path / "a.tmp").read_text() == "mine" and sorted(os.listdir(tmp_path)) == ["a", "a.tmp"]


def test_links_and_modes_stay(tmp_path):
  path = tmp_path / "file"
  path.write_text("before")
  path.chmod(0o640)
  (tmp_path / "link").symlink_to("file")
  files.write_text(tmp_path / "link", "after")
  assert (tmp_path / "link").is_symlink() and path.read_text() == "after"
  assert stat.S_IMODE(path.stat().st_mode) == 0o640
  os.link(path, tmp_path / "other name")
  files.write_text(path, "both")
  assert (tmp_path / "other name").read_text() == "both"


def test_a_link_to_nothing_creates_what_it_names(tmp_path):
  (tmp_path / "link").symlink_to("new")
  files.write_text(tmp_path / "link", "text")
  assert (tmp_path / "new").read_text() == "text"


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
def test_a_device_is_written_and_not_replaced(tmp_path):
  node = tmp_path / "null"
  try:
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    node.write_text("")
  except PermissionError:
    pytest.skip("devices cannot be made or opened here")
  files.write_text(node, "gone")
  assert stat.S_ISCHR(node.stat().st_mode)


def test_what_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file/below"):
    files.write_text(tmp_path / "file" / "below", "")
  with pytest.raises(UserError, match="Is a directory"):
    files.write_text(tmp_path, "")


def test_tilde_is_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert files.expand("~/run") == tmp_path / "run" and files.expand("a~") == pathlib.Path("a~")
  with pytest.raises(UserError, match="no such user"):
    files.expand("~nobody-of-this-name/run")


def test_remains_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
  (tmp_path / ".a.0123456789ab.tmp").write_text("")
  (tmp_path / ".a.tmp").write_text("")
  files.remove_remains(tmp_path)
  assert os.listdir(tmp_path) == [".a.tmp"]
