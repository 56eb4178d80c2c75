"""GPT (Radford et al. 2018): 12 layers, width 768, 512 tokens of context, normalised after each sub-layer.

  python -m attention_zoo.train    --config=configs/language/gpt.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=dev

DIR holds train.jsonl and dev.jsonl (or .jsonl.gz), a document a line in the field "text"; the paper's BooksCorpus is
not public any more. Paper: 18.4 perplexity per subword on BooksCorpus. Ours: not run. Hardware: 8 P600 for a month,
says its authors' announcement. Settings from the paper: 64 rows, Adam to 2.5e-4 in 2,000 steps and down a cosine to
0, weight decay 0.01, 100 epochs. Deviations: those of the model's file, and a BPE of SentencePiece.
"""

from attention_zoo.configs.language import gpt2


def get_config():
  config = gpt2.get_config()
  config.model.update(residual="post", max_length=512)
  config.data.update(vocab_size=40478, normalization="nmt_nfkc", batch_tokens=64 * 512, row_length=512)
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)",
    schedule="cosine(decay_steps=3_000_000, end_factor=0.0)", learning_rate=2.5e-4, warmup_steps=2000,
  )  # fmt: skip
  config.train.update(steps=3_000_000)
  return config
