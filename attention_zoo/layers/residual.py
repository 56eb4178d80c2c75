"""What surrounds each sub-layer: the residual connection, and where the normalisation stands relative to it.

"post" is norm(x + sublayer(x)), the paper's; "pre" is x + sublayer(norm(x)); "none" is norm(sublayer(x)), without the
connection. A layer writes it as

  h = enter(kind, x, norm)
  h = sublayer(h)
  x = leave(kind, x, dropout(h), norm)
"""

KINDS = ("post", "pre", "none")


def enter(kind, x, norm):
  """What the sub-layer gets."""
  return norm(x) if kind == "pre" else x


def leave(kind, x, h, norm):
  """What the next sub-layer gets, with h what this one made of its input."""
  if kind == "none":
    return norm(h)
  return norm(x + h) if kind == "post" else x + h
