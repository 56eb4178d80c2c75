"""Stand-ins for attention_zoo.train and attention_zoo.evaluate, quick and obedient.

plan.json in the current directory says what a row does: {row: {"steps", "sleep": a step, "crash": at step, "bad": at
step, "kill": deaths by SIGKILL in a row, "preempted": no deaths but exit code 75, "interrupted": nor those but 130,
"kill_evaluation", "deaf": ignores SIGTERM, "full": the disk is full at step, "await": a file to wait for, "evaluated":
the step that evaluation is of}}. Every step is a checkpoint.
"""

TRAIN = """
import json, os, pathlib, signal, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
row, work = pathlib.Path(flags["config"]).stem, pathlib.Path(flags["workdir"])
assert pathlib.Path(flags["config"]).is_file()
plan = json.loads(pathlib.Path("plan.json").read_text()).get(row, {})
stop = []
signal.signal(signal.SIGTERM, lambda *_: plan.get("deaf") or stop.append(1))
checkpoints = work / "checkpoints"
checkpoints.mkdir(exist_ok=True)
with open("history.txt", "a") as file:
  print("train", row, work.name, file=file)
(work / "args.json").write_text(json.dumps([sys.argv[1:], {k: os.environ.get(k) for k in ("NPROC", "OMP_NUM_THREADS")},
                                            sorted(os.sched_getaffinity(0))]))
if not (work / "tokenizer.model").exists():
  (work / "tokenizer.model").write_text("learnt by " + row)
text = pathlib.Path(flags["config.data.dir"], "train.en").read_text() if "config.data.dir" in flags else ""
if (work / "text.json").exists() and (work / "text.json").read_text() != text:
  sys.exit("error: the training text is not the one")
(work / "text.json").write_text(text)
pathlib.Path(flags["config.data.cache_dir"], "text").mkdir(parents=True, exist_ok=True)
(work / "versions.json").write_text('{"jax": "1.2", "python": "3"}')
step = max((int(path.name) for path in checkpoints.iterdir()), default=0)
while "await" in plan and not os.path.exists(plan["await"]):
  time.sleep(0.05)
print(f"starting at step {step}", flush=True)
while step < plan.get("steps", 3):
  time.sleep(plan.get("sleep", 0))
  step += 1
  if plan.get("kill", 0) and step == 2 and len(list(work.glob("death*"))) < plan["kill"]:
    (work / f"death{len(list(work.glob('death*')))}").touch()
    if code := 75 if plan.get("preempted") else 130 if plan.get("interrupted") else 0:
      sys.exit(code)
    os.kill(os.getpid(), signal.SIGKILL)
  if plan.get("crash") == step:
    raise RuntimeError("the roof is on fire")
  if plan.get("bad") == step:
    print("error: there is neither x.en nor x.en.gz.\\nFound: none", file=sys.stderr)
    sys.exit(2)
  if plan.get("full") == step:
    try:
      with open("/dev/full", "w") as file:
        print("x", file=file)
    except OSError as error:
      print(f"error: cannot write to {work}: {error}", file=sys.stderr)
      sys.exit(2)
  record = dict(step=step, split="train", time=time.time(), loss=4.0 / step, weight=1000.0, tokens_per_second=5000.0)
  with open(work / "metrics.jsonl", "a") as file:
    print(json.dumps(record), file=file)
  (checkpoints / str(step)).touch()
  if stop:
    print(f"saved at step {step}")
    sys.exit(75)
"""

EVALUATE = """
import json, os, pathlib, signal, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
assert (flags["checkpoint"], flags["split"]) == ("latest", "dev")
work = pathlib.Path(flags["workdir"])
plan = json.loads(pathlib.Path("plan.json").read_text()).get(work.parent.name, {})
with open("history.txt", "a") as file:
  print("evaluate", work.parent.name, work.name, file=file)
if plan.get("kill_evaluation"):
  os.kill(os.getpid(), signal.SIGKILL)
(work / "eval").mkdir(exist_ok=True)
bleu = [{"name": name, "score": score, "signature": "nrefs:1|" + name}
        for name, score in (("sacreBLEU", 1.0), ("tokenised (13a), compounds split", plan.get("bleu", 25.0)))]
seed = int(work.name.split("_")[1])
words, _, _ = json.loads((work / "args.json").read_text())
steps = next(int(word.split("=")[1]) for word in words if word.startswith("--config.train.steps="))
found = {"perplexity": {"per_subword": plan.get("perplexity", 5.0) + seed / 8}, "bleu": bleu}
found["step"] = str(plan.get("evaluated", steps))
(work / "eval" / "dev-latest.json").write_text(json.dumps(found))
"""
