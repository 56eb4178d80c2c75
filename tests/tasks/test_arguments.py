"""Arguments of verbs, without a run."""

import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.tasks import arguments


def test_line_ends_and_byte_order_marks_are_no_text():
  assert arguments.sentences(iter(["a\n", "b\r\n", "\ufeffc", "d\r", "\n", " e "])) == ["a", "b", "c", "d\r", "", " e "]
  assert all(type(text) is str for text in arguments.sentences(np.array(["a", "b"])))


def test_what_breaks_inside_an_iterable_is_not_hidden():
  def lines():
    yield "a"
    raise TypeError("mine")

  with pytest.raises(TypeError, match="mine"):
    arguments.sentences(lines())


@pytest.mark.parametrize("value", [7, None, np.float32(1), np.array(1)])
def test_what_is_no_iterable(value):
  with pytest.raises(UserError, match="sentences must be a list of sentences, not "):
    arguments.sentences(value)


def test_numbers():
  assert arguments.whole(np.int8(3), "n", 1, 3) == 3 and arguments.real(np.float64(1), "x", 0, 1) == 1.0
  for value in (0, 4, 1.0, True, "1", None, np.array([1, 2])):
    with pytest.raises(UserError, match="n must be a whole number from 1 to 3, not "):
      arguments.whole(value, "n", 1, 3)
  for value in (-1, 2, float("nan"), float("inf"), True, "0.5", None, [0.5]):
    with pytest.raises(UserError, match="x must be a number from 0 to 1, not "):
      arguments.real(value, "x", 0, 1)
