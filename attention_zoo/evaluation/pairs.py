"""What every metric of two lists of sentences checks first."""

from attention_zoo.errors import UserError


def check_pairs(metric, hypotheses, references) -> None:
  """Raises UserError where there are not as many hypotheses as references, or none."""
  if len(hypotheses) != len(references):
    raise UserError(
      f"{metric} needs one hypothesis per reference: {len(hypotheses)} hypotheses, {len(references)} references"
    )
  if not references:
    raise UserError(f"{metric} needs at least one sentence: there are no references; is the split empty?")
