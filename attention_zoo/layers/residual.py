"""What surrounds each sub-layer: the residual connection, and where the normalisation stands relative to it."""

KINDS = ("post", "pre", "none")


def residual(kind, x, sublayer, norm, dropout):
  """Wraps `sublayer`.

  "post" is norm(x + dropout(sublayer(x))), the paper's; "pre" is x + dropout(sublayer(norm(x))); "none" is
  norm(dropout(sublayer(x))), without the connection.
  """
  if kind == "post":
    return norm(x + dropout(sublayer(x)))
  if kind == "pre":
    return x + dropout(sublayer(norm(x)))
  if kind == "none":
    return norm(dropout(sublayer(x)))
  raise ValueError(f"model.residual must be one of {KINDS}, got {kind!r}")
