"""The letters of shapes: one meaning each, the same in names, einsums and sizes (see tests/test_house.py)."""

import ast
import re

import pytest

from tests.test_house import PACKAGE, complaints, python_files

# One letter, one meaning, in the whole package. A digit is that size; 1 broadcasts.
HOUSE_LETTERS = {
  "B": "batch",
  "T": "query length",
  "S": "key length",
  "D": "d_model",
  "F": "d_ff",
  "N": "heads",
  "K": "d_k",
  "H": "d_v",
  "V": "vocabulary",
  "C": "blocks",
  "W": "block width",
  "R": "relative offsets",
  "J": "beams",
  "Y": "image rows",
  "X": "image columns",
  "E": "experts",
  "G": "graph edges",
  "L": "layers",
  "Z": "positions that a cache has room for",
}
# Letters of single files, which must explain them: their docstring says "Letters ... X ...".
MORE_LETTERS = {
  "A": "pre-activations of gates, side by side",
  "I": "beam slots of a cache",
  "M": "positions of all sentences, or of all beams, in one row",
  "O": "classes of an output",
  "P": "candidates of a beam search step",
  "Q": "places in an expert's queue",
  "U": "width of several things side by side",
}
LETTERS = HOUSE_LETTERS | MORE_LETTERS

SUFFIX = re.compile(r"[A-Za-z0-9_]*[a-z][A-Za-z0-9_]*?_([A-Z0-9]*[A-Z][A-Z0-9]*)")


def suffix(name):
  """The dimension letters at the end of a name, or None: q_BTNK -> BTNK, MAX_ROWS and layer_0 -> None."""
  match = SUFFIX.fullmatch(name)
  return match[1] if match else None


def shape_of(node):
  """Letters of an expression, where they are plain: x_BT, x_BT * scalar, x_BT.astype(...); else None."""
  if isinstance(node, ast.Name):
    return suffix(node.id)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
    known = [letters for side in (node.left, node.right) if (letters := shape_of(side))]
    return known[0] if len(known) == 1 else None
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "astype":
    return shape_of(node.func.value)
  return None


def agrees(letters, subscripts):
  """Whether the letters of a name fit an einsum term; a digit fits any letter, '...' any number of them."""
  head, dots, tail = subscripts.partition("...")
  if len(letters) < len(head + tail) or (not dots and len(letters) != len(head)):
    return False
  pairs = [*zip(letters, head, strict=False), *zip(letters[::-1], tail[::-1], strict=False)]
  return all(a == b or a.isdigit() for a, b in pairs)


def is_einsum(node):
  return (
    isinstance(node, ast.Call)
    and ast.unparse(node.func).split(".")[-1] == "einsum"
    and node.args
    and isinstance(node.args[0], ast.Constant)
  )


def einsum_complaints(source):
  """Literal einsums: the names of operands and result agree with the terms; of a Linear, the shape of its kernel."""
  tree = ast.parse(source)
  for node in ast.walk(tree):
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].lower() == "linear" and node.args:
      subscripts, shape = (ast.unparse(argument) for argument in node.args[:2])
      kernel = subscripts.strip("'").partition(",")[2].partition("->")[0]
      sizes = shape.strip("()").split(", ")
      if len(sizes) != len(kernel) or any(
        re.fullmatch("[A-Z]", a) and a != b for a, b in zip(sizes, kernel, strict=True)
      ):
        yield f"line {node.lineno}: the kernel {kernel!r} has the shape {shape}"
    if is_einsum(node):
      subscripts = node.args[0].value.replace(" ", "")
      inputs, arrow, output = subscripts.partition("->")
      terms = inputs.split(",")
      operands = node.args[1 : 1 + len(terms)]  # types may follow
      if not arrow:
        yield f"line {node.lineno}: einsum {subscripts!r} does not name its output"
      if unknown := set(subscripts) - set("->,.") - set(LETTERS):
        yield f"line {node.lineno}: einsum {subscripts!r} has the unknown letters {sorted(unknown)}"
      if len(terms) != len(operands):
        yield f"line {node.lineno}: einsum {subscripts!r} has {len(operands)} operands"
        continue
      for term, operand in zip(terms, operands, strict=True):
        letters = shape_of(operand)
        if letters and not agrees(letters, term):
          yield f"line {node.lineno}: {ast.unparse(operand)} stands for {term!r} in einsum {subscripts!r}"
    if isinstance(node, ast.Assign | ast.AugAssign) and is_einsum(node.value):
      output = node.value.args[0].value.replace(" ", "").partition("->")[2]
      for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        letters = shape_of(target)
        if letters and not agrees(letters, output):
          yield f"line {node.lineno}: {ast.unparse(target)} gets the einsum's {output!r}"


def sizes_of(node):
  """Letters whose sizes an expression gives: x_BTD.shape, .shape[1], .shape[:2], len(x_BTD); else None."""
  if isinstance(node, ast.Attribute) and node.attr == "shape":
    return shape_of(node.value)
  if isinstance(node, ast.Subscript) and (letters := sizes_of(node.value)):
    at = node.slice
    parts = (at.lower, at.upper, at.step) if isinstance(at, ast.Slice) else (at,)
    try:
      numbers = [part and ast.literal_eval(part) for part in parts]
    except ValueError:
      return None
    return letters[slice(*numbers) if len(numbers) == 3 else numbers[0]]
  if isinstance(node, ast.Call) and ast.unparse(node.func) == "len" and (letters := shape_of(node.args[0])):
    return letters[0]
  return None


def letter_complaints(source):
  """Suffixes use known letters, and a size that is called T is the size of a dimension called T."""
  tree = ast.parse(source)
  doc = ast.get_docstring(tree) or ""
  explained = "".join(re.findall(r"Letters.*", doc, re.S))
  names = {(node.id, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Name)}
  names |= {(node.arg, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.arg)}
  told = set()
  for name, line in sorted(names, key=lambda pair: pair[1]):
    for letter in suffix(name) or "":
      if letter.isdigit() or letter in HOUSE_LETTERS or letter in told:
        continue
      if letter not in MORE_LETTERS:
        yield f"line {line}: {name} has the letter {letter}, which is in no table"
      elif not re.search(rf"\b{letter}\b", explained):
        yield f"line {line}: {name} has the letter {letter}, which the docstring does not explain"
      told.add(letter)

  def pairs(target, value):
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
      for inner in zip(target.elts, value.elts, strict=True):
        yield from pairs(*inner)
    elif letters := sizes_of(value):
      targets = target.elts if isinstance(target, ast.Tuple) else [target]
      if len(targets) == len(letters):
        yield from zip((ast.unparse(t) for t in targets), letters, strict=True)
      elif not any(isinstance(t, ast.Starred) for t in targets):
        yield ast.unparse(target), letters

  for node in ast.walk(tree):
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
      for name, letter in pairs(node.targets[0], node.value):
        if len(letter) != 1 or (re.fullmatch("[A-Z]", name) and not letter.isdigit() and name != letter):
          yield f"line {node.lineno}: {name} is the size of {letter}"


def test_einsums_agree_with_names():
  assert not complaints(einsum_complaints, python_files(PACKAGE))


def test_letters_mean_one_thing():
  assert not complaints(letter_complaints, python_files(PACKAGE))


@pytest.mark.parametrize(
  "snippet",
  [
    'x = jnp.einsum("BTNK,BSNK->BNTS", q_BSNK, k_BSNK)',
    'x = jnp.einsum("BTNK,BSNK->BNTS", q_BTNK, k_BNSK)',
    'x = jnp.einsum("BTNK,BSNK->BNTS", q_BTNK * scale, k_BSNH * scale)',
    'x = jnp.einsum("BTNK,BSNK->BNTS", (2.0 / q_BTNH).astype(dtype), k_BSNK)',
    'logits_BTNS = jnp.einsum("BTNK,BSNK->BNTS", q_BTNK, k_BSNK)',
    'a_BNTS = b_BNST = jnp.einsum("BTNK,BSNK->BNTS", q_BTNK, k_BSNK)',
    'out_BTNH += jnp.einsum("BNTS,BSNH->BNTH", w_BNTS, v_BSNH)',
    'x = jnp.einsum("BTD,DF", x_BTD, kernel_DF)',
    'x = jnp.einsum("btd,df->btf", x, kernel)',
    'x = jnp.einsum("BTD,DF->BTF", x_BTD)',
    'x = jnp.einsum("...D,VD->...V", x_BTF, table_VD)',
    'x = jnp.einsum("BTD,DF->BTF", x_BT, w_DF)',
    'wi = linear("BTD,DNK->BTNK", (D, K, N))',
    'wi = linear("BTD,DF->BTF", (D, N, K), name="wi")',
    'def f():\n  return self.output(einsum("BNJS,BNSH->BJNH", w_BNJS, v_BSNH))',
  ],
)
def test_the_einsum_rule_catches(snippet):
  assert list(einsum_complaints(snippet))


@pytest.mark.parametrize(
  "snippet",
  [
    'logits_BNTS = jnp.einsum("BTNK,BSNK->BNTS", q_BTNK * q_BTNK.shape[-1] ** -0.5, k_BSNK)',
    'logits_BN1S = jnp.einsum("BTNK, BSNK -> BNTS", q_B1NK, k_BSNK)',
    'x = jnp.einsum("BTNK,TSNK->BNTS", q_BTNK, table_RNK[row_TS])',
    'y_BTV = jnp.einsum("...D,VD->...V", x_BTD, table_VD.astype(x.dtype))',
    'logits_BTV = einsum("BTD,VD->BTV", x_BTD, self.table, jnp.float32, self.config.matmul_dtype)',
    'wi = linear("BTD,DF->BTF", (D, self.d_ff), name="wi")',
    'x = jnp.einsum("BTD,DF->BTF", first_BTD * second_BTN, w_DF)',
  ],
)
def test_the_einsum_rule_lets_pass(snippet):
  assert not list(einsum_complaints(snippet))


@pytest.mark.parametrize(
  "snippet",
  [
    "x_BTO = 1",
    "def f(x_BTU): pass",
    "gates_BA = 1",
    '"""Letters: P is something."""\ngates_BA = 1',
    "T = k_BSNK.shape[1]",
    "B, T, N = q_BTNK.shape",
    "B, T, N, H = q_BTNK.shape",
    "T, S = q_BTNK.shape[1], k_BSNK.shape[2]",
    "(N, H), T = q_BTNK.shape[2:], 3",
    "T = len(table_RNK)",
  ],
)
def test_the_letter_rule_catches(snippet):
  assert len(list(letter_complaints(snippet))) == 1


def test_the_letter_rule_lets_pass():
  snippet = '''"""Letters beside the house's: A gates."""
gates_BA = MAX_ROWS = layer_0 = x_1T = y_B1
*lead, T, S = mask_BNTS.shape
B, (N, K), T = x_BT.shape[0], q_BTNK.shape[2:], x_B1.shape[1]
size = q_BTNK.shape[1]
last = q_BTNK.shape[axis]
T, S = q_BTNK.shape[1], k_BSNK.shape[-3]
'''
  assert not list(letter_complaints(snippet))
