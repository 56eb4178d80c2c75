"""A decoder-only Transformer on the One Billion Word Benchmark (Chelba 2013), sentences packed into rows.

  python -m attention_zoo.train    --config=configs/language/lm1b_base.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

The geometry is that of the Flax examples' lm1b: 6 layers, width 512, 8 heads, d_ff 2,048, 30,000 pieces. Hardware: one
TPU slice of 8 chips or more. No paper printed a figure for this setting. Ours: not run. It is also the base of the
other language models' configs.
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.task = "language_modeling"
  config.model = ConfigDict(
    dict(
      name="transformer_lm",
      d_model=512,
      d_ff=2048,
      num_heads=8,
      d_k=64,
      d_v=64,
      num_layers=6,
      dropout=0.1,
      attention_dropout=0.0,
      residual="pre",  # where the normalisation stands; or "post", "none"
      norm_epsilon=1e-6,
      bias=False,  # of attention's linear maps
      attention="dot_product",  # any causal one of docs/attention.md; "local(block_width=64), dot_product" take turns
      feed_forward="dense",  # or "mixture_of_experts(num_experts=4, k=2)"
      activation="relu",  # or "gelu", "gelu_tanh", "swish"
      scale_embedding=True,  # times sqrt(d_model)
      output_bias=False,  # of the logits
      tied=True,  # whether the output has the embedding's table
      positions="sinusoidal",  # or "learned", "scalar", "none"
      position_mode="add",  # or "add_every_layer", "concatenate"
      max_length=1024,  # of learned positions, and of what else is indexed by position
      dtype="bfloat16",  # of activations; parameters are float32
      matmul_dtype="bfloat16",  # what the operands of linear maps are rounded to; sums are float32
      remat=False,  # True: keep the inputs of layers only and compute the rest anew; less memory, more time
      scan_layers=False,  # True: a stack is a loop over its layers: less to compile, but their parameters are copied
    )
  )
  config.data = ConfigDict(
    dict(
      source="tfds(name='lm1b')",  # or "text(..)", "json_lines(..)", "phrasebook(..)": data/documents.py
      dir="",  # of the text, or of the prepared TFDS data sets ("" = TFDS' own default)
      train_split="train",
      dev_split="test",  # the benchmark has no other
      test_split="test",
      vocab_size=30000,
      tokenizer="unigram",  # or "bpe", "characters", "bytes"
      normalization="nmt_nfkc",
      split_digits=False,
      batching="packed",  # documents; or "windows", "contiguous" parts of the whole text
      batch_tokens=131_072,  # over all devices
      row_length=512,
      row_multiple=8,  # the rows of every batch are a multiple of it
      seed=0,
      cache_dir="",  # of the tokenised text ("" = WORKDIR/data)
    )
  )
  config.optimizer = ConfigDict(
    dict(
      name="adamw(b1=0.9, b2=0.98, eps=1e-9, weight_decay=0.1)",  # any of training/optimizer.py
      schedule="inverse_sqrt",  # any of training/schedule.py
      learning_rate=1.6,  # factor; inverse_sqrt multiplies it by d_model^-0.5
      warmup_steps=1000,
      d_model=config.model.get_ref("d_model"),  # follows the model's
      clip_norm=0.0,  # 0 = no clipping
    )
  )
  config.train = ConfigDict(
    dict(
      steps=500_000,
      label_smoothing=0.0,
      accumulate=1,
      seed=0,
      log_every=100,
      eval_every=5000,
      checkpoint_every=2500,
      keep=5,
      max_nonfinite=10,
      ema=0.0,  # decay of the moving average of the parameters that is evaluated and loaded; 0 = none
      best_metric="",  # "loss", ..: the checkpoint with the best figure on dev is kept too
      best_mode="min",  # or "max"
      patience=0,  # evaluations without a better figure that end training; 0 = never
      # Examples that TensorBoard shows at each evaluation, where every device has all parameters; 0 = none.
      dev_samples=3,
      # Dropout's generator: "threefry2x32", the same bits everywhere, or "rbg", the hardware's own: see docs/gpu.md.
      random_bits="threefry2x32",
      init_from="",  # fine-tuning: the run whose parameters this one begins with
      init_map=(),  # ((pattern, replacement), ..): from the names here to the names there
      learning_rate_factors=(),  # ((pattern, factor), ..): by a parameter's path; 0 freezes
    )
  )
  config.decode = ConfigDict(
    dict(
      max_tokens=256, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, batch_tokens=8192
    )
  )
  config.mesh = ConfigDict(dict(rules="data_parallel", replica=1, data=-1, fsdp=1, tensor=1))
  return config.lock()
