"""Where the normalisation stands relative to the residual connection."""


def residual(kind, x, sublayer, norm, dropout):
  """Wraps `sublayer`: "post" is norm(x + dropout(sublayer(x))), the paper's; "pre" is x + dropout(sublayer(norm(x)))."""
  if kind == "post":
    return norm(x + dropout(sublayer(x)))
  if kind == "pre":
    return x + dropout(sublayer(norm(x)))
  raise ValueError(f"model.norm must be 'post' or 'pre', got {kind!r}")
