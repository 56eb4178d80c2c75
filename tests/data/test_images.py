"""Sources of images: the embedded shapes, folders and zip files with every bad input, and batches."""

import io
import logging
import os
import shutil
import zipfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from attention_zoo.data import images, picture, shapes
from attention_zoo.errors import UserError

SIZE = 8


def encoded(pixels, format="PNG", **options) -> bytes:
  buffer = io.BytesIO()
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
  image.save(buffer, format=format, **options)
  return buffer.getvalue()


def noise(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape or (SIZE, SIZE, 3)).astype(np.uint8)


def source(text, directory="", size=SIZE, num_classes=2):
  splits = dict(train_split="train", dev_split="dev", test_split="test")
  data = ConfigDict(dict(source=text, size=size, num_classes=num_classes, **splits))
  return images.make_images(data, str(directory))


# Shapes


def test_shapes_are_functions_of_split_and_index():
  made = source("shapes(train=30, dev=20, test=1)")
  pixels, labels = made.pictures("train")
  assert pixels.shape == (30, SIZE, SIZE, 3) and pixels.dtype == np.uint8 and labels.dtype == np.int32
  again, _ = source("shapes(train=20)").pictures("train")
  np.testing.assert_array_equal(pixels[:20], again[:20])
  assert made.fingerprint("train") != source("shapes(train=31)").fingerprint("train")
  assert set(labels) == {0, 1, 2, 3} == {*range(len(made.classes))}


def test_splits_of_shapes_share_no_picture():
  made = source("shapes(train=400, dev=150, test=150)", size=16)
  pictures = lambda split: {pixels.tobytes() for pixels in made.pictures(split)[0]}
  train, dev, test = map(pictures, ("train", "dev", "test"))
  assert len(train) > 390 and not train & dev and not train & test and not dev & test


def test_a_scene_tells_what_its_picture_shows():
  """Inside the box of an object is its colour, outside of all boxes the background; they do not overlap."""
  for index in range(20):
    scene = shapes.scene("train", index)
    pixels = shapes.picture(scene, 32)
    free = np.ones((32, 32), bool)
    for thing in scene.objects:
      top, left, bottom, right = (2 * edge for edge in thing.box)
      assert free[top:bottom, left:right].all()
      free[top:bottom, left:right] = False
      middle = pixels[(top + bottom) // 2, (left + right) // 2]
      np.testing.assert_array_equal(middle, shapes.COLOURS[thing.colour])
      assert str(thing) in scene.caption and thing.place in scene.caption
    np.testing.assert_array_equal(pixels[free], np.broadcast_to(shapes.BACKGROUNDS[scene.background], (free.sum(), 3)))
    assert [thing.large for thing in scene.objects] == [True] + [False] * (len(scene.objects) - 1)
    assert shapes.SHAPES[scene.label] == scene.objects[0].shape


# Files


def read(content, **options):
  return picture.read(content, "it.png", SIZE, **options)


def test_every_kind_of_pixel_becomes_colours():
  rgb = noise(0)
  np.testing.assert_array_equal(read(encoded(rgb)), rgb)
  np.testing.assert_array_equal(read(encoded(rgb, "BMP")), rgb)
  grey = rgb[..., 0]
  np.testing.assert_array_equal(read(encoded(grey)), np.stack([grey] * 3, -1))
  palette = Image.fromarray(rgb).quantize(16)
  np.testing.assert_array_equal(read(encoded(palette)), np.asarray(palette.convert("RGB")))
  clear = np.concatenate([rgb, np.full((SIZE, SIZE, 1), 0, np.uint8)], -1)
  clear[0, :, 3] = 255
  found = read(encoded(Image.fromarray(clear, "RGBA")))
  np.testing.assert_array_equal(found[0], rgb[0])
  assert (found[1:] == 255).all(), "what is transparent is laid on white"


def test_a_photograph_is_turned_as_its_exif_data_says():
  rgb = noise(1)
  exif = Image.Exif()
  exif[0x0112] = 6  # turn right
  np.testing.assert_array_equal(read(encoded(rgb, exif=exif)), np.rot90(rgb, -1))


def test_the_square_in_the_middle_is_taken_and_made_smaller():
  wide = np.zeros((2 * SIZE, 6 * SIZE, 3), np.uint8)
  wide[:, 2 * SIZE : 4 * SIZE] = 200
  assert (read(encoded(wide)) == 200).all()
  np.testing.assert_array_equal(read(encoded(noise(2, 4, 4, 3)), enlarge=True).shape, (SIZE, SIZE, 3))


def animation():
  frames = [Image.fromarray(noise(i)) for i in range(2)]
  return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def bomb():
  """A small file that says it has 6,000 x 6,000 pixels."""
  content = bytearray(encoded(noise(0)))
  content[16:24] = (6_000).to_bytes(4) * 2
  import zlib

  content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
  return bytes(content)


def deep():
  """A PNG file of 16 bits a colour, written by hand: Pillow writes none."""
  import struct
  import zlib

  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  rows = zlib.compress((b"\0" + b"\x12\x34" * 3 * SIZE) * SIZE)
  header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BAD = {
  "truncated.png": (lambda: encoded(noise(0, 64, 64, 3))[:2000], "not a sound image"),
  "truncated.jpg": (lambda: encoded(noise(0, 64, 64, 3), "JPEG")[:1500], "not a sound image"),
  "bomb.png": (bomb, "6,000 x 6,000 pixels"),
  "text.jpg": (lambda: b"no image at all", "is no image"),
  "empty.jpg": (lambda: b"", "is no image"),
  "cmyk.jpg": (lambda: encoded(Image.new("CMYK", (SIZE, SIZE)), "JPEG"), "the colours CMYK"),
  "deep.png": (deep, "more than 8 bits"),
  "deep.ppm": (lambda: b"P6 # a comment\n8 8\n65535\n" + bytes(SIZE * SIZE * 6), "more than 8 bits"),
  "deep_grey.png": (lambda: encoded(Image.new("I;16", (SIZE, SIZE))), "more than 8 bits"),
  "moving.gif": (animation, "is an animation"),
  "one.png": (lambda: encoded(noise(0, 1, 1, 3)), "1 x 1 pixels, fewer than 8 x 8"),
  "line.png": (lambda: encoded(noise(0, 1, 3000, 3)), "3000 x 1 pixels, fewer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named(name):
  make, message = BAD[name]
  with pytest.raises(UserError, match=f"^{name} .*{message}"):
    picture.read(make(), name, SIZE)


def test_what_has_another_ending_is_read_by_its_content():
  np.testing.assert_array_equal(picture.read(encoded(noise(0)), "it.jpg", SIZE), noise(0))


def test_one_pixel_is_not_enlarged():
  with pytest.raises(UserError, match="1 x 1 pixels"):
    read(encoded(noise(0, 1, 1, 3)), enlarge=True)
  assert picture.read(encoded(noise(0, 1, 1, 3)), "it", 1, enlarge=True).shape == (1, 1, 3)


def test_the_preview_in_a_cameras_file_is_no_animation():
  photograph = Image.new("RGB", (SIZE, SIZE), (200, 10, 10))
  content = encoded(photograph, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
  assert abs(picture.read(content, "DSC0001.JPG", SIZE).astype(int) - (200, 10, 10)).max() < 4


def test_folders_are_no_classes_where_none_are_asked_for(tmp_path):
  for name in ("train/00/a.png", "dev/01/b.png"):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(encoded(noise(0)))
  with pytest.raises(UserError, match="has the classes 01, which the training images have not"):
    source("images", tmp_path).pictures("dev")
  shutil.rmtree(tmp_path / "train")  # other test sets have no training images
  assert source("images", tmp_path, num_classes=0).pictures("dev")[1].tolist() == [0]


# Folders and zip files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two classes: a folder for training, a zip file for dev."""
  root = tmp_path_factory.mktemp("images")
  for name, seed in (("cat/0.png", 0), ("cat/1.png", 1), ("dog/0.PNG", 2), ("dog/more/1.png", 3)):
    path = root / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(seed)))
  (root / "train" / "cat" / ".hidden.png").write_bytes(b"of the system")
  (root / "train" / "notes.txt").write_text("no image")
  with zipfile.ZipFile(root / "dev.zip", "w") as archive:
    for name, seed in (("dog/5.png", 5), ("dog/6.png", 6), ("__MACOSX/dog/5.png", 7)):
      archive.writestr(name, encoded(noise(seed)))
  return root


def test_folders_are_the_classes(folder):
  made = source("images", folder)
  assert made.classes == ("cat", "dog")
  pixels, labels = made.pictures("train")
  assert labels.tolist() == [0, 0, 1, 1]
  np.testing.assert_array_equal(pixels, [noise(i) for i in range(4)])
  pixels, labels = made.pictures("dev")
  np.testing.assert_array_equal(pixels, [noise(5), noise(6)])
  assert labels.tolist() == [1, 1]


def test_images_without_folders_have_no_classes(folder, tmp_path):
  shutil.copytree(folder, tmp_path / "it")
  (tmp_path / "it" / "train" / "loose.png").write_bytes(encoded(noise(9)))
  made = source("images", tmp_path / "it")
  pixels, labels = made.pictures("train")
  assert made.classes == () and len(pixels) == 5 and not labels.any()


def test_a_zip_file_may_hold_a_folder_of_its_own_name(tmp_path):
  """As `zip -r train.zip train` makes it: that folder is no class."""
  for split in ("train", "dev"):
    with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as archive:
      archive.writestr(f"{split}/0.png", encoded(noise(0)))
  made = source("images", tmp_path)
  assert made.classes == ()
  for split in ("train", "dev"):
    np.testing.assert_array_equal(made.pictures(split)[0], [noise(0)])


def test_bad_files_are_skipped_and_told_or_refused(folder, tmp_path, caplog):
  shutil.copytree(folder, tmp_path / "it")
  (tmp_path / "it" / "train" / "cat" / "bad.jpg").write_bytes(b"no image")
  with caplog.at_level(logging.WARNING):
    pixels, _ = source("images", tmp_path / "it").pictures("train")
  assert len(pixels) == 4 and "1 of 5 images" in caplog.text and "cat/bad.jpg is no image" in caplog.text
  with pytest.raises(UserError, match="cat/bad.jpg is no image"):
    source("images(bad='refuse')", tmp_path / "it").pictures("train")


def test_mixed_sizes_are_named_where_nothing_is_cut(folder, tmp_path):
  shutil.copytree(folder, tmp_path / "it")
  (tmp_path / "it" / "train" / "cat" / "wide.png").write_bytes(encoded(noise(0, SIZE, 9, 3)))
  with pytest.raises(UserError, match="wide.png has 9 x 8 pixels, not 8 x 8"):
    source("images(resize='none', bad='refuse')", tmp_path / "it").pictures("train")


def test_what_is_not_there_is_told(folder, tmp_path):
  with pytest.raises(UserError, match="must name the folder"):
    source("images")
  with pytest.raises(UserError, match="does not exist"):
    source("images", tmp_path / "none")
  with pytest.raises(UserError, match=r"neither a folder val nor val.zip"):
    source("images", folder).pictures("val")
  (tmp_path / "train").mkdir()
  with pytest.raises(UserError, match="train has no images"):
    source("images", tmp_path).pictures("train")
  (tmp_path / "train" / "0.png").write_bytes(encoded(noise(0)))
  (tmp_path / "dev.zip").write_bytes(b"PK no zip")
  with pytest.raises(UserError, match="dev.zip is not a sound zip file"):
    source("images", tmp_path).pictures("dev")
  with pytest.raises(UserError, match="resize must be 'crop' or 'none'"):
    source("images(resize='squash')", folder)
  with pytest.raises(UserError, match="no source of images 'image'.*did you mean 'images'"):
    source("image", folder)


def test_a_damaged_member_of_a_zip_file_is_named(folder, tmp_path):
  content = bytearray((folder / "dev.zip").read_bytes())
  at = content.find(b"IDAT") + 8
  content[at : at + 4] = bytes(b ^ 255 for b in content[at : at + 4])
  (tmp_path / "train.zip").write_bytes(bytes(content))
  with pytest.raises(UserError, match="train.zip/dog/5.png cannot be unpacked: Bad CRC-32"):
    source("images(bad='refuse')", tmp_path).pictures("train")


def test_classes_that_training_has_not_are_told(folder, tmp_path):
  shutil.copytree(folder / "train", tmp_path / "train")
  shutil.copytree(folder / "train", tmp_path / "dev")
  (tmp_path / "dev" / "dog").rename(tmp_path / "dev" / "fox")
  with pytest.raises(UserError, match="has the classes fox, which the training images have not"):
    source("images", tmp_path).pictures("dev")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
  """Twenty images of two classes, as a folder and as a zip file."""
  root = tmp_path_factory.mktemp("many")
  with zipfile.ZipFile(root / "zipped.zip", "w") as archive:
    for i in range(20):
      path = root / "train" / ("cat", "dog")[i // 10] / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded(np.full((SIZE, SIZE, 3), i)))
      archive.write(path, path.relative_to(root / "train"))
  return root


def test_a_split_may_be_a_part(many):
  made = source("images", many)
  found = {split: made.pictures(split) for split in ("train[:5]", "train[5:10]", "train[-10:]", "train[:75%]")}
  first, second, last, most = ({int(image[0, 0, 0]) for image in pixels} for pixels, _ in found.values())
  assert [len(first), len(second), len(last), len(most)] == [5, 5, 10, 15]
  assert first | second | last == {*range(20)} and first | second < most
  assert any(i < 10 for i in first) and any(i >= 10 for i in first), "both classes"
  for pixels, labels in found.values():
    numbers = pixels[:, 0, 0, 0]
    assert numbers.tolist() == sorted(numbers, key=lambda i: (i >= 10, str(i)))  # the names' order
    np.testing.assert_array_equal(labels, numbers >= 10)
  np.testing.assert_array_equal(made.pictures("zipped[:5]")[0], found["train[:5]"][0])


def test_classes_are_those_of_the_whole_split(many):
  splits = dict(train_split="train[:1]", dev_split="train[1:]", test_split="")
  data = ConfigDict(dict(source="images", size=SIZE, num_classes=2, **splits))
  made = images.make_images(data, str(many))
  assert made.classes == ("cat", "dog") and len(made.pictures("train")[1]) == 1
  assert set(made.pictures("dev")[1]) == {0, 1}


def test_names_of_files_need_not_be_utf_8(tmp_path):
  (tmp_path / "train").mkdir()
  for name in ("a.png", os.fsdecode(b"\xff.png")):
    (tmp_path / "train" / name).write_bytes(encoded(noise(0)))
  made = source("images", tmp_path)
  assert [len(made.pictures(f"train{part}")[1]) for part in ("", "[:1]")] == [2, 1]
  assert made.fingerprint("train[:1]") != made.fingerprint("train[1:]")


def test_the_fingerprint_of_a_part_is_its_own(many):
  for split in ("train", "zipped"):
    found = [source("images", many).fingerprint(f"{split}{part}") for part in ("", "[:5]", "[5:]")]
    assert len(set(found)) == 3


@pytest.mark.parametrize("part", ["[5:2]", "[:3", "[a]", "[3]", "[40:]", "[:200%]", "[:5]+train[7:]", "[:]"])
def test_what_is_no_part_is_told(many, part):
  with pytest.raises(UserError, match=r"train has 20 images, of which \[.* is no part: write for example \[:100\]"):
    source("images", many).pictures(f"train{part}")


def test_the_fingerprint_is_of_content_and_options(folder, tmp_path):
  shutil.copytree(folder, tmp_path / "it")
  first = source("images", folder).fingerprint("train")
  assert source("images", tmp_path / "it").fingerprint("train") == first
  assert source("images(enlarge=True)", folder).fingerprint("train") != first
  (tmp_path / "it" / "train" / "cat" / "0.png").write_bytes(encoded(noise(11)))
  assert source("images", tmp_path / "it").fingerprint("train") != first


# Batches


def test_an_epoch_has_every_image_once_and_mirrors_half():
  pixels, labels = np.arange(10)[:, None, None, None] * np.ones((1, 4, 4, 3)), np.arange(10)
  pixels = (10 * pixels + np.arange(4)[None, None, :, None]).astype(np.uint8)
  batches = images.ImageBatches(pixels, labels, rows=5, seed=1, flip=True, low_size=2)
  epoch = [batches[0], batches[1]]
  assert sorted(np.concatenate([batch["labels"] for batch in epoch])) == [*range(10)]
  mirrored = np.concatenate([batch["pixels"][:, 0, 0, 0] - 10 * batch["labels"] for batch in epoch]) == 3
  assert 0 < mirrored.sum() < 10
  for batch in epoch:
    blocks = batch["pixels"].reshape(5, 2, 2, 2, 2, 3)
    np.testing.assert_array_equal(batch["low"], np.round(blocks.mean((2, 4))))


def test_what_is_no_image_is_told():
  np.testing.assert_array_equal(images.to_pixels(noise(0).tolist(), SIZE), noise(0))
  for given, message in (
    (np.zeros((4, 4, 3)), r"must be an image of 8 x 8 x 3 values, not of the shape \[4, 4, 3\]"),
    (np.full((SIZE, SIZE, 3), 256), "whole numbers from 0 to 255"),
    (np.full((SIZE, SIZE, 3), 0.5), "whole numbers"),
    (np.full((SIZE, SIZE, 3), np.nan), "whole numbers"),
  ):
    with pytest.raises(UserError, match=message):
      images.to_pixels(given, SIZE)
