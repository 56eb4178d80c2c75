from attention_zoo.training.display import Display


def test_lines_where_there_is_no_terminal(capsys):
  display = Display(0, 4, quiet=False)
  values = {"loss": 1.25, "perplexity": 3.0, "tokens_per_second": 12345.6, "nonfinite": 0.0}
  display.advance(1)
  display.show(2, "train", values)
  display.show(2, "dev", {"loss": 1.5, "nonfinite": 2.0})
  display.print("a [word]")
  display.close()
  lines = capsys.readouterr().err.splitlines()
  assert lines[0].startswith("step 2/4  loss 1.2500  perplexity 3  12,346 tokens/s") and lines[0].endswith(
    " left"
  )
  assert lines[1:] == ["step 2/4  dev  loss 1.5000  2 non-finite steps skipped", "a [word]"]
