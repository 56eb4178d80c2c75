"""TensorBoard event files without TensorFlow: TFRecord files of Event protocol buffers,
few fields of which are needed."""

import math
import re
import struct
import time

from etils import epath

from attention_zoo import files


def _crc_table() -> list[int]:
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return table


_CRC_TABLE = _crc_table()


def _masked_crc32c(data: bytes) -> bytes:
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
  number &= (1 << 64) - 1
  digits = []
  while number >= 128:
    digits.append(number & 127 | 128)
    number >>= 7
  return bytes((*digits, number))


def _message(number: int, content: bytes) -> bytes:
  """A length-delimited field: a string or a message inside a message."""
  return _varint(number << 3 | 2) + _varint(len(content)) + content


def _float32(value: float) -> bytes:
  try:
    return struct.pack("<f", value)
  except OverflowError:  # the perplexity of a loss above 88.7
    return struct.pack("<f", math.copysign(math.inf, value))


def markdown_table(samples: list[dict[str, str]]) -> str:
  """Rows of the same columns as a Markdown table that shows every character as itself."""

  def cell(text):
    return re.sub(r"""[^\w\s.,:;'"?()/-]|_""", lambda found: f"&#{ord(found[0])};", text).replace("\n", "<br>")

  rows = [
    list(samples[0]),
    ["---"] * len(samples[0]),
    *([cell(text) for text in sample.values()] for sample in samples),
  ]
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class EventFile:
  """A TensorBoard event file of scalars, texts and pictures, written without TensorFlow.

  step: where the run resumes; TensorBoard then drops what older files say about later steps.
  """

  def __init__(self, directory, step: int):
    directory = epath.Path(directory)
    with files.writing(directory):
      directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads files in the order of their names: the next number, even if the clock was set back.
    paths = directory.iterdir() if directory.exists() else ()  # a bucket has no empty folders
    found = [re.fullmatch(r"events\.out\.tfevents\.(\d+)\..+", path.name) for path in paths]
    number = max([int(time.time()), *(int(match[1]) + 1 for match in found if match)])
    self._file = files.Appender(directory / f"events.out.tfevents.{number:010d}.attention_zoo")
    self._event(0, _message(3, b"brain.Event:2"))
    self._event(step + 1, _message(7, b"\x08\x01"))  # SessionLog.START

  def _event(self, step: int, content: bytes) -> None:
    data = b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + content
    length = struct.pack("<Q", len(data))
    self._file.append(length + _masked_crc32c(length) + data + _masked_crc32c(data))

  def scalars(self, step: int, values: dict) -> None:
    self._summary(step, {name: b"\x15" + _float32(value) for name, value in values.items()})

  def text(self, step: int, tag: str, text: str) -> None:
    """Markdown, shown under TEXT."""
    plugin = _message(9, _message(1, _message(1, b"text")))  # SummaryMetadata
    tensor = b"\x08\x07" + _message(2, _message(2, b"\x08\x01")) + _message(8, text.encode())  # DT_STRING, shape [1]
    self._summary(step, {tag: plugin + _message(8, tensor)})

  def image(self, step: int, tag: str, png_bytes: bytes) -> None:
    """A PNG file, shown under IMAGES. Raises ValueError for other content."""
    if png_bytes[:8] != b"\x89PNG\r\n\x1a\n" or png_bytes[12:16] != b"IHDR" or len(png_bytes) < 26:
      raise ValueError("not a PNG file")
    width, height, _, kind = struct.unpack(">IIBB", png_bytes[16:26])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[kind]
    sizes = b"".join(bytes((number << 3,)) + _varint(x) for number, x in ((1, height), (2, width), (3, channels)))
    self._summary(step, {tag: _message(4, sizes + _message(4, png_bytes))})

  def _summary(self, step: int, contents: dict[str, bytes]) -> None:
    """One Event with a Summary of a Value for each tag; contents: the fields of a Value behind its tag."""
    values = (_message(1, _message(1, tag.encode()) + content) for tag, content in contents.items())
    self._event(step, _message(5, b"".join(values)))

  def close(self) -> None:
    self._file.close()
