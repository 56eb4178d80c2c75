"""GPT-2 small (Radford et al. 2019): 12 layers, width 768, 1,024 tokens of context, 124,439,808 parameters.

  python -m attention_zoo.train    --config=configs/language/gpt2.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=dev
  python -m attention_zoo.sample   --workdir=WORKDIR --prompt="In a shocking finding," --max_tokens=200

DIR holds train.jsonl and dev.jsonl (or .jsonl.gz), a document a line in the field "text": OpenWebText, as WebText is
not public. Paper: 37.50 perplexity per word on WikiText-103, without having been trained on it. Ours: not run.
Hardware: the paper names none. On 8 chips of v5e --config.train.accumulate=16: 7.5 GiB a chip by the compiler, which
without it asks for 54 (`attention_zoo.compile --topology=v5e:2x4`). The paper has a batch of 512 rows and no more of
the training; the optimizer is that of GPT-3's small model (Brown et al. 2020, Table 2.1 and appendix B),
and nanoGPT's 600,000 steps.
Deviations: a BPE of SentencePiece in the place of GPT-2's over bytes; the model's own are in its file.
"""

from attention_zoo.configs.language import lm1b_base


def get_config():
  config = lm1b_base.get_config()
  config.model.update(
    d_model=768, d_ff=3072, num_heads=12, num_layers=12, dropout=0.1, attention_dropout=0.1, norm_epsilon=1e-5,
    bias=True, activation="gelu_tanh", scale_embedding=False, positions="learned", max_length=1024,
  )  # fmt: skip
  config.data.update(
    source="json_lines(field='text')", dev_split="dev", test_split="dev", vocab_size=50257, tokenizer="bpe",
    normalization="identity", batching="windows", batch_tokens=512 * 1024, row_length=1024,
  )  # fmt: skip
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1)",
    schedule="cosine(decay_steps=600_000, end_factor=0.1)", learning_rate=6e-4, warmup_steps=700, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=600_000)
  config.decode.update(max_tokens=256, temperature=1.0, top_k=40)
  return config
