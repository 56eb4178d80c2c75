"""Image files as arrays of one size: whatever a file is called, its content says what it is.

Pillow decodes JPEG, PNG, GIF, BMP, PPM and WebP. Files may come from anybody: a size that is declared is checked before
anything of that size is made.
"""

import io
import re
import warnings

import numpy as np

from attention_zoo import files
from attention_zoo.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".ppm", ".pgm", ".webp")
MOST = 64 << 20  # bytes of a file
MOST_MEMORY = 1 << 36  # bytes of the images of a split
RESIZES = ("crop", "none")

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP")
_MOST_PIXELS = 1 << 25


def check_memory(count: int, size: int, where) -> None:
  """Raises UserError for more images than are held in memory at once."""
  if count * size * size * 3 > MOST_MEMORY:
    raise UserError(
      f"{where}: {count:,} images of {size} x {size} take {count * size * size * 3 / 2**30:,.0f} GiB of memory, "
      f"at most {MOST_MEMORY >> 30} GiB are held: take fewer, or a smaller config.data.size"
    )


def read(content: bytes, name, size: int, *, resize: str = "crop", enlarge: bool = False) -> np.ndarray:
  """uint8 [size, size, 3] of the content of an image file.

  resize: "crop" takes the square in the middle and makes it smaller; "none": the image has the size. enlarge: whether
  to make a smaller one larger. Grey images and palettes become colours, what is transparent is laid on white, and a
  photograph is turned as its EXIF data says. Raises UserError that names the file and what is wrong with it.
  """
  from PIL import Image

  return _sized(Image, _decoded(content, name), name, size, resize, enlarge)


def file_size(path) -> tuple[int, int]:
  """(columns, rows) of an image file, as `read` sees it. Raises UserError as it does."""
  return _decoded(files.read_bytes(path, MOST), path).size


def _decoded(content, name):
  from PIL import Image, ImageOps

  if len(content) > MOST:
    raise UserError(f"{name} has more than {MOST:,} bytes")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of sizes and of EXIF data: what matters is checked here
      _check_size(*_webp_size(content), name)  # Pillow makes the canvas of such a file when it opens it
      image = Image.open(io.BytesIO(content), formats=_FORMATS)
      _check(image, content, name)
      image.load()
      return _rgb(Image, ImageOps.exif_transpose(image))
  except UserError:
    raise
  except Image.UnidentifiedImageError:
    raise UserError(f"{name} is no image: it is none of {', '.join(_FORMATS)}") from None
  except Exception as error:  # whatever the bytes led Pillow to
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise UserError(f"{name} is not a sound image: {reason}") from None


def _check_size(width, height, name):
  if width * height > _MOST_PIXELS:
    raise UserError(f"{name} has {width:,} x {height:,} pixels: at most {_MOST_PIXELS:,} are read")


def _webp_size(content) -> tuple[int, int]:
  """(columns, rows) that the header of a WebP file declares; (0, 0) of other content."""
  number = lambda start, stop: int.from_bytes(content[start:stop], "little")
  if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
    return 0, 0
  if content[12:16] == b"VP8X":
    return number(24, 27) + 1, number(27, 30) + 1
  if content[12:16] == b"VP8L":
    return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
  return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF


def _check(image, content, name):
  _check_size(*image.size, name)
  if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a camera's JPEG with a preview
    raise UserError(f"{name} is an animation: it is several images")
  # Of deep colours Pillow would drop the lower half.
  deep = (image.format == "PNG" and content[24:25] == b"\x10") or (image.format == "PPM" and _maxval(content) > 255)
  if deep or image.mode.startswith(("I", "F")):
    raise UserError(f"{name} has more than 8 bits for each value: convert it to 8")
  if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
    raise UserError(f"{name} has the colours {image.mode}, which are no red, green and blue: convert it to RGB")


def _maxval(content) -> int:
  """The number that a PPM or PGM file's header gives for the brightest value; 1 of one without."""
  words = re.sub(rb"#[^\r\n]*", b" ", content[:4096]).split(None, 4)[:4]
  return int(words[3]) if words[0] in (b"P2", b"P3", b"P5", b"P6") and words[3:] and words[3].isdigit() else 1


def _rgb(Image, image):
  if "A" in image.mode or "transparency" in image.info:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")


def of_array(pixels, name, size: int, *, resize: str = "crop", enlarge: bool = False) -> np.ndarray:
  """uint8 [size, size, 3] of uint8 [Y, X, 3] or [Y, X, 1]. Options and errors are those of `read`."""
  from PIL import Image

  pixels = np.asarray(pixels)
  if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype != np.uint8:
    raise UserError(f"{name} is no image of 8-bit colours: it is {pixels.dtype} {list(pixels.shape)}")
  image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
  return _sized(Image, image, name, size, resize, enlarge)


def _sized(Image, image, name, size, resize, enlarge):
  width, height = image.size
  if resize == "none" and (width, height) != (size, size):
    raise UserError(f"{name} has {width} x {height} pixels, not {size} x {size}: set resize='crop' to cut it to size")
  side = min(width, height)
  if side < (min(2, size) if enlarge else size):
    raise UserError(f"{name} has {width} x {height} pixels, fewer than {size} x {size}")
  if (width, height) != (size, size):
    # The square first: a line of a million pixels would become many times as large.
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
      image = image.resize((size, size), Image.Resampling.LANCZOS)
  return np.asarray(image, np.uint8)


def read_file(path, size: int, **options) -> np.ndarray:
  return read(files.read_bytes(path, MOST), path, size, **options)
