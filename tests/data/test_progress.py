from attention_zoo.data import progress


def test_items_pass_and_are_counted_on_standard_error(monkeypatch, capsys):
  monkeypatch.setattr(progress, "_AFTER", -1)
  monkeypatch.setattr(progress, "_EVERY", 1)
  monkeypatch.setenv("FORCE_COLOR", "1")
  assert list(progress.counted(iter("abc"), "Reading")) == ["a", "b", "c"]
  out, err = capsys.readouterr()
  assert out == "" and "Reading" in err


def test_what_is_quick_shows_nothing(capsys):
  assert list(progress.counted(range(3), "Reading")) == [0, 1, 2]
  assert capsys.readouterr() == ("", "")
