"""The BiLSTM-CRF of Lample et al. 2016 on CoNLL-2003's English part.

  python -m attention_zoo.train    --config=configs/pretraining/bilstm_crf_conll2003.py --workdir=DIR \\
      --config.data.dir=CONLL --config.data.word_vectors="glove(path='glove.6B.100d.txt')"
  python -m attention_zoo.evaluate --workdir=DIR --split=dev

CONLL holds train.txt, valid.txt and test.txt (or .txt.gz), a word and its tag a line. Without word_vectors words begin
at random. Paper: 90.94 F1 on the test split with its own vectors; 90.20 without characters' LSTM, from memory. Ours:
not run. Hardware: not said. Deviations: those of the model's file; Adam in place of SGD, batches of 32 sentences in
place of one.
"""

from attention_zoo.configs.pretraining import bilstm_crf_quickstart

PAPER = {"F1": 90.94}


def get_config():
  config = bilstm_crf_quickstart.get_config()
  config.model.update(
    d_word=100, word_length=50, d_character=25, d_spelling=25, d_hidden=100, num_layers=1, dropout=0.5
  )
  config.data.update(
    source="conll", train_split="train", dev_split="valid", test_split="test", labels=("PER", "ORG", "LOC", "MISC"),
    vocab_size=10_000, batch_tokens=32 * 128, row_length=128,
  )  # fmt: skip
  config.optimizer.update(schedule="linear(decay_steps=13_000)", learning_rate=2e-3, warmup_steps=100)
  config.train.update(steps=13_000, eval_every=440, checkpoint_every=440, log_every=100)
  return config
