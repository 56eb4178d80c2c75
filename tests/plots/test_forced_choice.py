"""The page that asks which image is real: what lies in it, and what a person does, in headless Chromium."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image

from attention_zoo.plots.forced_choice import Pair, forced_choice_page

SYSTEMS = [("one <b>", "4 %"), ("two", "")]
COUNT = 6


def pairs():
  """Real images are light, drawn ones dark."""
  image = lambda light, i: np.full((4, 4, 3), 200 * light + i, np.uint8)
  return [Pair(i % 2, i, image(True, i), image(False, i)) for i in range(COUNT)]


def made(systems=SYSTEMS, **options):
  return forced_choice_page(systems, pairs(), **{"seconds": 30, "seed": 0} | options)


def data_of(page):
  return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def value(data, i):
  return int(np.asarray(Image.open(io.BytesIO(base64.b64decode(data["images"][i]))))[0, 0, 0])


def left_is_real(code):
  return bin(code).count("1") % 2 == 1


def test_every_pair_is_there_once_and_its_code_tells_the_side():
  data = data_of(made())
  assert [value(data, i) for i in range(12)] != sorted(value(data, i) for i in range(12))
  assert sorted(trial[1] for trial in data["trials"]) == [*range(COUNT)]
  for system, image, left, right, code in data["trials"]:
    values = [value(data, left), value(data, right)]
    assert system == image % 2 and sorted(values) == [image, 200 + image]
    assert left_is_real(code) == (values[0] >= 200)


def test_order_and_sides_are_functions_of_the_seed():
  assert made(seed=1) == made(seed=1) and data_of(made(seed=1))["trials"] != data_of(made())["trials"]


def test_neither_the_order_nor_a_digit_gives_the_real_one_away():
  """Over many pages each plain guess is right about half of the time."""
  rows = []
  for seed in range(100):
    for _, _, left, right, code in data_of(made(seed=seed))["trials"]:
      rows.append((left_is_real(code), left < right, code & 1, code > 2**30))
  real, *guesses = np.array(rows, bool).T
  assert all(0.42 < (real == guess).mean() < 0.58 for guess in (np.ones_like(real), *guesses))


def test_markup_in_names_stays_in_the_data():
  page = made(command="<i>")
  assert page.count("<script") == 2 and "<b>" not in page.replace('<b id="seconds">', "") and "<i>" not in page


# What a person does


def opened(browser, folder, width=1000, **options):
  (folder / "page.html").write_text(made(**options))
  browser.open(folder / "page.html", width=width)
  return browser


def ask(browser, n):
  """Waits until pair n (from 1) is seen; returns whether the left one is real, by its pixels."""
  return browser.run(
    f"""(async () => {{
      const seen = () => document.getElementById('progress').textContent.startsWith('Pair {n} ')
                         && !document.getElementById('pair').classList.contains('gone');
      while (!seen()) await new Promise(done => setTimeout(done, 20));
      const canvas = new OffscreenCanvas(1, 1).getContext('2d');
      canvas.drawImage(document.querySelector('#left img'), 0, 0);
      return canvas.getImageData(0, 0, 1, 1).data[0] >= 200;
    }})()"""
  )


def results(browser):
  return browser.run("[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.textContent))")


def test_answers_are_counted_by_mouse_and_keyboard(browser, tmp_path):
  page = opened(browser, tmp_path)
  page.click("#start")
  wrong = {}  # of each answer, by the system
  for n, (system, *_) in enumerate(data_of(made())["trials"], 1):
    left = ask(page, n)
    fooled = n % 3 == 0
    choose_left = left != fooled
    if n % 2:
      page.key("ArrowLeft" if choose_left else "ArrowRight")
    else:
      page.click("#left" if choose_left else "#right")
    wrong.setdefault(system, []).append(fooled)
  shares = {system: (len(each), np.mean(each)) for system, each in wrong.items()}
  wanted = []
  for system, (name, printed) in enumerate(SYSTEMS):
    n, share = shares[system]
    error = 100 * np.sqrt(share * (1 - share) / n)
    wanted.append([name, str(n), f"{100 * share:.1f} %", f"{error:.1f} %", printed or "–"])
  assert results(page) == wanted
  saved = json.loads(page.run("decodeURIComponent(document.getElementById('save').href.split(',')[1])"))
  assert saved["seed"] == 0 and len(saved["answers"]) == COUNT
  assert [each["fooled"] for each in saved["answers"]] == [n % 3 == 0 for n in range(1, COUNT + 1)]
  assert all(0 <= each["milliseconds"] < 60_000 for each in saved["answers"])
  assert page.complaints == []


def test_systems_of_one_name_are_counted_apart(browser, tmp_path):
  page = opened(browser, tmp_path, systems=[("one", "")] * 2)
  page.click("#start")
  ask(page, 1)
  page.key("ArrowLeft")
  page.click("#stop")
  counts = [1, 0] if data_of(made())["trials"][0][0] == 0 else [0, 1]
  assert [int(row[1]) for row in results(page)] == counts


def test_the_browsers_own_keys_are_no_answers(browser, tmp_path):
  page = opened(browser, tmp_path)
  page.click("#start")
  ask(page, 1)
  for name in ("alt", "ctrl", "meta"):
    page.key("ArrowLeft", **{name: True})
  assert page.run("document.getElementById('progress').textContent").startswith("Pair 1 ")
  page.click("#stop")
  assert [row[1] for row in results(page)] == ["0", "0"]


def test_images_go_after_the_time_and_can_still_be_answered(browser, tmp_path):
  page = opened(browser, tmp_path, seconds=0.1)
  page.click("#start")
  page.run(
    """(async () => {
      const pair = document.getElementById('pair'), wait = () => new Promise(done => setTimeout(done, 20));
      while (!pair.querySelector('img')) await wait();
      while (!pair.classList.contains('gone')) await wait();
    })()"""
  )
  assert page.run("getComputedStyle(document.querySelector('#left img')).visibility") == "hidden"
  page.key("ArrowLeft")
  page.run("(async () => { while (!document.getElementById('progress').textContent.startsWith('Pair 2 ')) "
           "await new Promise(done => setTimeout(done, 20)); })()")  # fmt: skip
  page.click("#stop")
  assert [int(row[1]) for row in results(page)] in ([1, 0], [0, 1])
  assert "–" in [row[2] for row in results(page)]


def test_it_fits_a_phone(browser, tmp_path):
  page = opened(browser, tmp_path, width=375)
  page.click("#start")
  ask(page, 1)
  wide = page.run("[...document.querySelectorAll('#pair button')].map(x => x.getBoundingClientRect().width)")
  assert min(wide) > 140 and page.run("document.documentElement.scrollWidth") <= 375
  page.click("#stop")
  assert page.run("document.documentElement.scrollWidth") <= 375
