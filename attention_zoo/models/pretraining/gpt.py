"""GPT: Radford, Narasimhan, Salimans, Sutskever 2018, "Improving Language Understanding by Generative Pre-Training".

It is `models/language/transformer_lm.py` with the paper's settings. It is pretrained by the task language_modeling;
tuned by classification or regression, with config.head.pooling = "last" and the paper's auxiliary loss as
config.train.language_model_weight = 0.5, or by tagging, which has neither.

| what                | GPT                                  | here                                                    |
|---------------------|--------------------------------------|---------------------------------------------------------|
| layers              | post-LN, GELU by tanh, biases        | the same                                                |
| positions           | learned, 512                         | the same                                                |
| output              | the embedding's table, no bias       | the same                                                |
| start of a text     | a token that tuning brings           | <s>, which begins documents in pretraining too          |
| delimiter, extract  | two tokens that tuning brings        | </s> for both; in pretraining it is predicted, not read |
| first values        | N(0, 0.02^2)                         | embeddings N(0, 1/d_model), kernels Glorot-uniform      |
| auxiliary loss      | of each text's tokens, with a weight | the same                                                |
| pairs without order | both orders, their outputs added     | one order                                               |

With the published 40,478 pieces it has 116,534,784 parameters.
"""

import dataclasses

from attention_zoo.models.language import transformer_lm


@dataclasses.dataclass(frozen=True)
class Config(transformer_lm.Config):
  """The published model, but for the vocabulary."""

  residual: str = "post"
  max_length: int = 512


BATCH = transformer_lm.BATCH
Model = transformer_lm.Model
parameter_count = transformer_lm.parameter_count
output_table = transformer_lm.output_table
decoding = transformer_lm.decoding


def small() -> Config:
  """For tests."""
  return Config(vocab_size=11, d_model=8, d_ff=14, num_heads=2, d_k=4, d_v=4, num_layers=2, max_length=16, dropout=0.0)
