"use strict";
{
  const $ = id => document.getElementById(id);
  const {systems, images, trials, seconds, seed} = JSON.parse($("data").textContent);
  const pictures = images.map(code => Object.assign(new Image(), {src: `data:image/png;base64,${code}`, alt: ""}));
  const leftIsReal = code => { let ones = 0; for (; code; code &= code - 1) ones++; return ones % 2 == 1; };
  const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
  const answers = [];
  let seen = 0, timer = 0, open = false;  // since when, when it ends, whether an answer is taken

  const show = id => ["intro", "task", "results"].forEach(name => { $(name).hidden = name != id; });
  const gone = () => $("pair").classList.add("gone");

  const next = async () => {
    gone();
    if (answers.length == trials.length) return finish();
    const [, , left, right] = trials[answers.length];
    $("progress").textContent = `Pair ${answers.length + 1} of ${trials.length}: which one is real?`;
    await Promise.all([wait(250), pictures[left].decode(), pictures[right].decode()]);
    $("left").replaceChildren(pictures[left]);
    $("right").replaceChildren(pictures[right]);
    $("pair").classList.remove("gone");
    [seen, open, timer] = [performance.now(), true, setTimeout(gone, seconds * 1000)];
  };

  const answer = left => {
    if (!open) return;
    open = false;
    clearTimeout(timer);
    const [system, image, , , code] = trials[answers.length];
    const milliseconds = Math.round(performance.now() - seen);
    answers.push({system, image, fooled: left != leftIsReal(code), milliseconds});
    next();
  };

  const finish = () => {
    [open, timer] = [false, clearTimeout(timer)];
    const figures = systems.map(({name, printed}, i) => {
      const own = answers.filter(each => each.system == i), n = own.length;
      const share = own.filter(each => each.fooled).length / n;
      const [percent, error] = n ? [100 * share, 100 * Math.sqrt(share * (1 - share) / n)] : [null, null];
      return {system: name, answers: n, percent_fooled: percent, standard_error: error, printed};
    });
    for (const each of figures) {
      const number = x => x === null ? "–" : `${x.toFixed(1)} %`;
      const cells = [each.system, each.answers, number(each.percent_fooled), number(each.standard_error),
                     each.printed || "–"];
      const heads = [...document.querySelectorAll("#results th")].map(head => head.textContent);
      const row = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = Object.assign(document.createElement("td"), {textContent: text, className: i ? "n" : ""});
        cell.dataset.head = heads[i];
        row.append(cell);
      });
      $("rows").append(row);
    }
    const text = JSON.stringify({seconds, seed, systems: figures, answers}, null, 2);
    $("save").href = `data:application/json;charset=utf-8,${encodeURIComponent(text)}`;
    show("results");
    $("save").focus();
  };

  const some = (n, word) => `${n} ${word}${n == 1 ? "" : "s"}`;
  $("seconds").textContent = some(seconds, "second");
  $("count").textContent = `${some(trials.length, "pair")} of ${some(systems.length, "system")}. Results are shown at the end.`;
  $("start").addEventListener("click", () => { show("task"); $("left").focus(); next(); });
  $("stop").addEventListener("click", finish);
  $("left").addEventListener("click", () => answer(true));
  $("right").addEventListener("click", () => answer(false));
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;  // the browser's own
    if ($("task").hidden || event.repeat || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    answer(event.key == "ArrowLeft");
  });
}
