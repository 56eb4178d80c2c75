"""What sources of images refuse before they make anything of it."""

import io
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from attention_zoo.data import images, picture
from attention_zoo.errors import UserError


def source(text, size, directory=""):
  splits = dict(train_split="train", dev_split="dev", test_split="test")
  data = ConfigDict(dict(source=text, size=size, num_classes=2, **splits))
  return images.make_images(data, str(directory))


def test_more_images_than_memory_holds_are_refused(tmp_path, monkeypatch):
  for name in ("shapes", "markers"):
    with pytest.raises(UserError, match=f"{name}: 10,000,000 images of 1024 x 1024 take 29,297 GiB of memory, at most"):
      source(f"{name}(train=10_000_000)", 1024)
  (tmp_path / "train").mkdir()
  for i in range(3):
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / f"{i}.png")
  assert len(source("images", 8, tmp_path).pictures("train")[0]) == 3
  monkeypatch.setattr(picture, "MOST_MEMORY", 3 * 8 * 8 * 3 - 1)
  monkeypatch.setattr(picture, "read", lambda *_, **__: pytest.fail("it was read"))
  with pytest.raises(UserError, match="train: 3 images of 8 x 8 take 0 GiB"):
    source("images", 8, tmp_path).pictures("train")


def test_images_become_small_and_large():
  """The mean of each square, rounded; and cubics between, which overshoot by 0.1119 of a step (a = -1/2)."""
  pixels = np.zeros((1, 4, 4, 3), np.uint8)
  pixels[0, :2, :2, 0] = [[0, 10], [20, 31]]
  pixels[0, :, 2:, 2] = 200
  low = images.shrink(pixels, 2)
  assert low[0, ..., 0].tolist() == [[15, 0], [0, 0]] and low[0, ..., 2].tolist() == [[0, 200], [0, 200]]
  large = images.bicubic(low, 8)
  assert large.shape == (1, 8, 8, 3) and large.dtype == np.uint8
  assert (large[0, :, 0, 2] == 0).all() and (abs(large[0, :, -1, 2] - 222.4) < 1).all()
  assert (np.diff(large[0, :, 2:6, 2].astype(int)) > 0).all(), "rows are columns, and it rises from left to right"


@pytest.mark.parametrize("options", [dict(lossless=True), dict(lossless=False), dict(lossless=True, exif=b"more")])
def test_the_size_of_a_webp_file_is_checked_before_it_is_opened(options, monkeypatch):
  """The three kinds of header. Pillow makes the whole canvas when it opens such a file."""
  buffer = io.BytesIO()
  Image.new("RGB", (9, 7)).save(buffer, format="WEBP", **options)
  assert picture._webp_size(buffer.getvalue()) == (9, 7)
  monkeypatch.setattr(picture, "_MOST_PIXELS", 62)
  monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
  with pytest.raises(UserError, match="it.webp has 9 x 7 pixels: at most 62"):
    picture.read(buffer.getvalue(), "it.webp", 4)


MUTATED = """
import io, resource
import numpy as np
from PIL import Image
from attention_zoo.data import picture
from attention_zoo.errors import UserError

rng = np.random.default_rng(0)
image = Image.fromarray(rng.integers(0, 256, (24, 24, 3)).astype(np.uint8))
seeds = []
for options in (dict(format="PNG"), dict(format="JPEG"), dict(format="GIF"), dict(format="BMP"), dict(format="PPM"),
                dict(format="WEBP"), dict(format="WEBP", lossless=True)):
  buffer = io.BytesIO()
  image.save(buffer, **options)
  seeds.append(buffer.getvalue())
picture.read(seeds[0], "it.png", 8)  # what is imported and made once is not counted
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (5 << 27),) * 2)
read_well = 0
for i in range(1000):
  content = bytearray(seeds[i % len(seeds)])
  for _ in range(rng.integers(1, 8)):  # every other time in the header, where sizes stand
    content[rng.integers(min(len(content), 64) if i // len(seeds) % 2 else len(content))] = rng.integers(256)
  if i % 5 == 0:  # sizes from small to huge
    columns, rows = (int(2 ** rng.uniform(3, 18)) for _ in range(2))
    if i % 10:
      content = b"P6\\n%d %d\\n255\\n" % (columns, rows) + content
    else:
      content = bytearray(seeds[3])
      content[18:26] = columns.to_bytes(4, "little") + rows.to_bytes(4, "little")
  elif rng.random() < 0.3:
    content = content[: rng.integers(len(content))]
  try:
    found = picture.read(bytes(content), "it.png", 8)
    assert found.shape == (8, 8, 3) and found.dtype == np.uint8
    read_well += 1
  except UserError as error:
    assert str(error).startswith("it.png") and "\\n" not in str(error)
    assert "memory" not in str(error).lower(), error
print(read_well)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_thousand_mutated_files_end_in_an_array_or_a_complaint_within_their_memory():
  done = subprocess.run([sys.executable, "-c", MUTATED], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 100 < int(done.stdout) < 800
