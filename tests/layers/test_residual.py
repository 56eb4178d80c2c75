"""Where the normalisation and the dropout stand."""

import pytest

from attention_zoo.layers.residual import residual


def trace(kind):
  """Each step writes itself down: the result is the formula."""

  class Text(str):
    def __add__(self, other):
      return Text(f"{self} + {other}")

  call = lambda name: lambda x: Text(f"{name}({x})")
  return residual(kind, Text("x"), call("sublayer"), call("norm"), call("dropout"))


def test_post_is_the_papers():
  assert trace("post") == "norm(x + dropout(sublayer(x)))"


def test_pre():
  assert trace("pre") == "x + dropout(sublayer(norm(x)))"


def test_none_has_no_connection():
  assert trace("none") == "norm(dropout(sublayer(x)))"


def test_other_kinds_are_refused():
  with pytest.raises(ValueError, match="one of .*'post', 'pre', 'none'.*, got 'both'"):
    trace("both")
