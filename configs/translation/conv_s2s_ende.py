"""ConvS2S, WMT14 English-German: Gehring et al. 2017, arXiv:1705.03122, section 5.1.

  python -m attention_zoo.train    --config=configs/translation/conv_s2s_ende.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Paper: 25.16 BLEU on newstest2014, the mean of three runs. Hardware: one M40 GPU for 18.5 days in the paper. Ours: not
run. The paper divides the learning rate by ten after each epoch once the perplexity on held-out text no longer falls;
here it is constant. Batches of about 48 sentences. The dropout rate is not stated there: that of the authors' published
command. It divides a score by a tuned power of the length: alpha=1 of our penalty is near it.
What is said of the paper is from memory.
"""

import ml_collections

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ml_collections.ConfigDict(
    dict(
      name="conv_s2s", d_model=512, widths=(512,) * 10 + (768,) * 3 + (2048,) * 2, kernel_sizes=(3,) * 13 + (1,) * 2,
      dropout=0.2, weight_norm=True, max_length=1024, dtype="bfloat16", matmul_dtype="bfloat16",
    )  # fmt: skip
  ).lock()
  config.data.update(vocab_size=40000, batch_tokens=2048)
  config.optimizer.update(
    name="sgd(momentum=0.99, nesterov=True)", schedule="constant", learning_rate=0.25, warmup_steps=1, clip_norm=0.1
  )
  config.train.update(label_smoothing=0.0)
  config.decode.update(beam_size=5, alpha=1.0)
  return config
