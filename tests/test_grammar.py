import pytest

from attention_zoo import grammar


def shaw(sizes, *, max_distance: int = 16, scale: float = 1.0, name: str = ""):
  return sizes, max_distance


def test_a_text_names_a_function_and_its_options():
  assert grammar.parse("shaw(max_distance=4, on=(True, 'x'))") == ("shaw", {"max_distance": 4, "on": (True, "x")})
  assert grammar.bind("shaw(scale=2)", {"shaw": shaw}, "attention") == (shaw, {"scale": 2})


@pytest.mark.parametrize(
  ("text", "parts"),
  [
    ("alibi", ["alibi"]),
    (" local(block_width=2) ,alibi,", ["local(block_width=2)", "alibi"]),
    ("shaw(max_distance=2, shared=True)", ["shaw(max_distance=2, shared=True)"]),
    ("alibi; rotary", ["alibi; rotary"]),
    ("()", ["()"]),
  ],
)
def test_a_text_is_split_at_its_commas(text, parts):
  assert grammar.split(text) == parts


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("shwa", "no attention 'shwa' .did you mean 'shaw'.*there are shaw"),
    ("shaw(4)", 'not of the form "name"'),
    ("shaw(max_distance=x)", "not of the form"),
    ("__import__('os')", "not of the form"),
    ("shaw(max_distanc=4)", "no option 'max_distanc' .did you mean 'max_distance'"),
    ("shaw(sizes=4)", "no option 'sizes'"),
    ("shaw(max_distance=2.5)", "max_distance=...* must be int, not 2.5"),
    ("shaw(max_distance=True)", "must be int, not True"),
    ("shaw(scale=1e999)", "must be finite"),
    ("(" * 100_000, "not of the form"),
  ],
)
def test_what_is_refused(text, message):
  with pytest.raises(ValueError, match=message):
    grammar.bind(text, {"shaw": shaw}, "attention")
