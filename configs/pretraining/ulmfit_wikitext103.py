"""ULMFiT's first run (Howard and Ruder 2018): an AWD-LSTM of general text.

  python -m attention_zoo.train --config=configs/pretraining/ulmfit_wikitext103.py --config.data.dir=DIR --workdir=LM

DIR holds WikiText-103 as folders train/ and dev/ of text files, a paragraph a line. The second run goes on with the
text of the task: --config.train.init_from=LM --config.model.rate_decay=2.6, the schedule slanted_triangular and
--config.optimizer.learning_rate=1.04e-2, of which the last LSTM has 1 / 2.6: the paper's 4e-3. Paper: no perplexity of
this run. Ours: not run. Hardware: not said. Settings: 64 rows of 70 words, Adam with b1 0.7 and b2 0.99, from the
paper; pieces of a BPE in place of whole words.
"""

from attention_zoo.configs.pretraining import ulmfit_lm_quickstart


def get_config():
  config = ulmfit_lm_quickstart.get_config()
  config.model.update(
    d_model=400, d_hidden=1150, num_layers=3, embedding_dropout=0.05, input_dropout=0.4, hidden_dropout=0.3,
    output_dropout=0.4, weight_dropout=0.5,
  )  # fmt: skip
  config.data.update(
    source="text(documents='line')", vocab_size=30_000, batch_tokens=64 * 70, row_length=70, batching="contiguous"
  )
  config.optimizer.update(
    name="adam(b1=0.7, b2=0.99, eps=1e-8)", schedule="cosine(decay_steps=300_000)", learning_rate=1e-3, d_model=400
  )
  config.train.update(steps=300_000, eval_every=10_000, checkpoint_every=10_000, log_every=100)
  return config
