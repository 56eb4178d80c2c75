"""Transformer base, WMT14 English-German ("Attention Is All You Need", Table 2 and Table 3).

  python -m attention_zoo.train    --config=configs/transformer_base.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=5
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test

Hardware: 8 P100 for 12 hours in the paper.
Paper: 27.3 BLEU on newstest2014 (5 checkpoints averaged, beam 4, alpha 0.6). Ours: not run.
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.task = "translation"
  config.model = ConfigDict(
    dict(
      name="transformer",
      d_model=512,
      d_ff=2048,
      num_heads=8,
      d_k=64,
      d_v=64,
      num_encoder_layers=6,
      num_decoder_layers=6,
      dropout=0.1,
      attention_dropout=0.0,
      residual="post",  # where the normalisation stands; or "pre", or "none": no residual connections
      norm_epsilon=1e-6,
      bias=False,  # of attention's linear maps; those of the feed-forward network always have one
      encoder_attention="dot_product",  # any of docs/attention.md, "shaw(max_distance=16)"; "alibi, shaw" take turns
      decoder_attention="dot_product",
      feed_forward="dense",  # or "mixture_of_experts(num_experts=4, k=2)"
      activation="relu",  # or "gelu", "gelu_tanh", "swish"
      scale_embedding=True,  # times sqrt(d_model)
      output_bias=False,  # of the logits
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
      source="tfds(name='wmt14_translate/de-en')",  # or "text" (files in `dir`), or "phrasebook" (embedded)
      dir="",  # of the text files, or of the prepared TFDS data sets ("" = TFDS' own default)
      languages=("en", "de"),
      train_split="train",
      dev_split="validation",
      test_split="test",
      tokenized=False,  # True: the text is pre-tokenised, and BLEU is computed on it as it is
      vocab_size=37000,
      tokenizer="bpe",  # or "unigram"
      normalization="nmt_nfkc",
      split_digits=False,  # True: each digit is a piece of its own
      subword_sampling=0.0,  # BPE-dropout's probability (0.1 in the paper), or unigram's power; 0 = none
      batching="packed",  # or "bucketed"
      batch_tokens=24576,  # of each side, over all devices
      row_length=256,
      row_multiple=8,  # the rows of every batch are a multiple of it; of as many devices, or more, for "bucketed"
      max_length=128,  # at most about half a row, so that rows can be filled
      too_long="truncate",  # or "skip"
      seed=0,
      cache_dir="",  # of the tokenised text ("" = WORKDIR/data)
    )
  )
  config.optimizer = ConfigDict(
    dict(
      name="adam(b1=0.9, b2=0.98, eps=1e-9)",  # any of training/optimizer.py
      schedule="inverse_sqrt",  # the paper's; or any of training/schedule.py: "cosine(decay_steps=100_000)"
      learning_rate=1.0,  # factor; the paper's schedule multiplies it by d_model^-0.5
      warmup_steps=4000,
      d_model=config.model.get_ref("d_model"),  # follows the model's
      clip_norm=0.0,  # 0 = no clipping
    )
  )
  config.train = ConfigDict(
    dict(
      steps=100_000,
      label_smoothing=0.1,
      accumulate=1,
      seed=0,
      log_every=100,
      eval_every=2000,
      checkpoint_every=1500,
      keep=5,
      max_nonfinite=10,
      ema=0.0,  # decay of the moving average of the parameters that is evaluated and loaded; 0 = none
      best_metric="",  # "bleu", "loss", ..: the checkpoint with the best figure on dev is kept too
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
      beam_size=4,
      alpha=0.6,
      coverage_penalty=0.0,
      replace_unknown=False,
      unknown_dictionary="",
      search="beam",  # or "stochastic_beam(samples=4, segment_length=10, temperature=1.0, seed=0)"
      extra_length=50,
      batch_tokens=4096,
      dev_sentences=0,
    )
  )
  config.mesh = ConfigDict(dict(rules="data_parallel", replica=1, data=-1, fsdp=1, tensor=1))
  return config.lock()
