"""What every runner's `attention` returns: weights with their tokens, to be drawn and explored."""

import html

from attention_zoo import files
from attention_zoo.errors import UserError
from attention_zoo.plots.attention_page import View, attention_page


class Attended:
  """Base of a dataclass with `logprob`. `kinds`: {word: View}, where a kind without weights has None for them."""

  def kinds(self) -> dict[str, View]:
    raise NotImplementedError

  def _present(self):
    found = {word: kind for word, kind in self.kinds().items() if kind.weights_LNTS is not None}
    if not found:
      raise UserError(
        "this model has no attention to show: it has none, or a local one, which never has all weights in one array"
      )
    return found

  def show(self, kind: str | None = None, *, layer: int = -1, head: int | None = None):
    """A picture that notebooks show: all heads small, one large.

    kind: "cross", "encoder", ...; by default the first that there is. layer, head: of the large map, counted from 0;
    head None: the mean of the layer's. Returns a `plots.picture.Picture`, whose `save(path)` writes it.
    Raises UserError for what there is not.
    """
    from attention_zoo.plots.attention_overview import attention_overview
    from attention_zoo.plots.picture import Picture

    present = self._present()
    if kind is not None and kind not in present:
      raise UserError(f"there is no attention {kind!r}; there is {', '.join(present)}")
    chosen = present[kind] if kind else next(iter(present.values()))
    try:
      return Picture(
        attention_overview(
          chosen.weights_LNTS, chosen.queries, chosen.keys, layer=layer, head=head, title=chosen.name, lag=chosen.lag
        )
      )
    except IndexError:
      L, N = chosen.weights_LNTS.shape[:2]
      raise UserError(f"layer {layer}, head {head} is not among {L} layers with {N} heads, counted from 0") from None

  def html(self) -> str:
    """`page` as a text."""
    count = len(next(iter(self._present().values())).queries)
    facts = f"Log-probability of these {count} tokens: {self.logprob:.2f} nats, of the pass that had these weights."
    return attention_page([*self._present().values()], "Where the model looks", facts)

  def page(self, path) -> str:
    """Writes one HTML file that needs no network: every layer and head, by mouse, touch and keyboard. Returns path."""
    files.write_text(files.expand(path), self.html())
    return str(path)

  def _repr_html_(self):
    try:
      text = self.html()
    except UserError as error:
      return f"<p>{html.escape(str(error))}</p>"
    style = "width:100%;height:760px;border:1px solid #8884;border-radius:6px"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(text)}"></iframe>'

  def __repr__(self):
    shapes = {word: kind.weights_LNTS.shape for word, kind in self.kinds().items() if kind.weights_LNTS is not None}
    said = "; ".join(f"{w}: {L} layers, {N} heads, {T} x {S} tokens" for w, (L, N, T, S) in shapes.items())
    return f"<Attention {said or 'of no kind'}; log-probability {self.logprob:.2f}>"
