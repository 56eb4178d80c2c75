"""Which languages have spaces between words."""

import pytest

from attention_zoo.evaluation.languages import has_spaces

CHINESE = ["我们今天去学校。"]


@pytest.mark.parametrize("language", ["zh", "ZH-TW", "zho_Hant", "yue", "ja", "jpn", "th", "km", "lo", "my", "bo"])
def test_written_without_spaces(language):
  assert not has_spaces(language, ["abc"])


@pytest.mark.parametrize("language", ["de", "ko", "vi", "en-GB", "zh_Latn", "tgt"])
def test_written_with_spaces(language):
  assert has_spaces(language, ["wo men jin tian", "Käse", "나는 학교에", "1, 2"])


def test_letters_tell_where_the_name_does_not():
  assert not has_spaces("tgt", CHINESE) and not has_spaces("de", ["เขากินข้าวที่บ้าน"])
  assert has_spaces("en", ["The sign for mountain is 山 in Chinese."])
  assert has_spaces("en", [])
