"""Files are written whole or not at all, and stay what they were: devices, links, modes, and their neighbours."""

import os
import pathlib
import stat
import threading

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


def test_a_pipe_is_written_and_not_replaced(tmp_path):
  pipe, read = tmp_path / "pipe", []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
  reader.start()
  files.write_text(pipe, "text")
  reader.join(10)
  assert read == ["text"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]


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
  for name in (".old.abcdefgh.tmp", ".new.abcdefgh.tmp"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "part").write_text("")
  for path in (tmp_path / ".old.abcdefgh.tmp", tmp_path / ".old.abcdefgh.tmp" / "part"):
    os.utime(path, (1, 1))
  os.utime(tmp_path / ".new.abcdefgh.tmp", (1, 1))  # somebody is still writing the file in it
  files.remove_remains(tmp_path)
  assert sorted(os.listdir(tmp_path)) == [".a.tmp", ".new.abcdefgh.tmp"]


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"12345")
  assert files.read_bytes(path, 5) == b"12345"
  with pytest.raises(UserError, match="more than 4 bytes"):
    files.read_bytes(path, 4)
  os.mkfifo(tmp_path / "pipe")
  for name in (tmp_path / "pipe", "/dev/zero", tmp_path):
    with pytest.raises(UserError, match="not a regular file|[Ii]s a directory"):
      files.read_bytes(name, 5)
  with pytest.raises(UserError, match="cannot read .*none"):
    files.read_bytes(tmp_path / "none", 5)


def test_json_is_read_within_bounds(tmp_path):
  path = tmp_path / "a.json"
  path.write_text('{"a": [1, {"b": 2}]}')
  assert files.read_json(path, depth=4) == {"a": [1, {"b": 2}]}
  with pytest.raises(UserError, match="nested more than 3 deep"):
    files.read_json(path, depth=3)
  for text in ("[" * 100_000, "[1,", "", b"\xff\xfe\xfd", "[" * 33 + "]" * 33):
    with pytest.raises(UserError, match="a.json is n"):
      files.parse_json(text, path)


def test_what_cannot_be_looked_at_does_not_exist(tmp_path, monkeypatch):
  """A name that is too long, and a folder that is closed to this user."""
  assert files.exists(tmp_path) and not files.exists(tmp_path / "a") and not files.exists(tmp_path / ("a" * 300))

  def denied(path, **options):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "stat", denied)
  assert not files.exists(tmp_path)


def test_a_file_grows(tmp_path):
  path = tmp_path / "new" / "log"
  log = files.Appender(path, b"before ")
  log.append(b"a")
  log.append(b"b")
  assert path.read_bytes() == b"before ab"
  log.close()
  with pytest.raises(
    UserError, match="cannot write .*log/below: Not a directory|cannot write .*log/below: File exists"
  ):
    files.Appender(path / "below")
