"""Where the normalisation and the connection stand."""

from attention_zoo.layers.residual import enter, leave


def trace(kind):
  """Each step writes itself down: the result is the formula."""

  class Text(str):
    def __add__(self, other):
      return Text(f"{self} + {other}")

  call = lambda name: lambda x: Text(f"{name}({x})")
  h = call("sublayer")(enter(kind, Text("x"), call("norm")))
  return leave(kind, Text("x"), call("dropout")(h), call("norm"))


def test_post_is_the_papers():
  assert trace("post") == "norm(x + dropout(sublayer(x)))"


def test_pre():
  assert trace("pre") == "x + dropout(sublayer(norm(x)))"


def test_none_has_no_connection():
  assert trace("none") == "norm(dropout(sublayer(x)))"
