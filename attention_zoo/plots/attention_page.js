"use strict";
{
  const $ = id => document.getElementById(id), {views, facts} = JSON.parse($("data").textContent);
  const make = (tag, text, parent, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    if (parent) parent.append(node);
    return node;
  };
  const COLOURS = ["blue", "orange", "green", "violet", "rose", "gold"];
  const colour = head => `var(--${COLOURS[head % COLOURS.length]})`;
  const range = n => Array.from({length: n}, (_, i) => i);
  const percent = byte => {
    const x = (byte / 255) ** 2 * 100;
    return x && x < 1 ? "<1 %" : `${Math.round(x)} %`;
  };
  const special = token => /^<.+>$/.test(token);
  const plain = token => token.replace(/▁/g, " ").replace(/[\r\n]/g, "↵").trim() || "·";
  const quoted = token => `“${plain(token)}”`;

  // Weights: bytes of each head as a matrix, row after row; head -1 is the mean of a layer's heads.

  const raw = view => view.raw ??= Uint8Array.from(atob(view.data), c => c.charCodeAt(0));
  const kept = new Map();
  const matrix = (view, layer, head) => {
    const name = `${views.indexOf(view)} ${layer} ${head}`, T = view.queries.length, S = view.keys.length;
    if (kept.has(name)) return kept.get(name);
    let out = new Uint8Array(T * S);
    const bytes = raw(view), n = layer * view.heads + head;
    if (head < 0) {
      const sum = new Float32Array(T * S);
      for (const h of range(view.heads)) matrix(view, layer, h).forEach((b, i) => { sum[i] += b * b; });
      sum.forEach((x, i) => { out[i] = Math.round(Math.sqrt(x / view.heads)); });
    } else if (view.kind == "full") out = bytes.subarray(n * T * S, (n + 1) * T * S);
    else if (view.kind == "causal") {
      let at = n * T * (T + 1) / 2;
      for (const t of range(T)) { out.set(bytes.subarray(at, at + t + 1), t * S); at += t + 1; }
    } else {
      const k = view.keep, places = view.layers * view.heads * T * k * 2;
      for (const i of range(T * k)) {
        const at = n * T * k + i;
        out[Math.floor(i / k) * S + bytes[2 * at] + 256 * bytes[2 * at + 1]] = bytes[places + at];
      }
    }
    if (kept.size > 40) kept.clear();
    kept.set(name, out);
    return out;
  };

  // State: what is chosen, and what the mouse is over, which passes.

  const state = {view: null, layer: 0, head: -1, side: "queries", token: 0};
  let over = null;
  const current = () => over ?? state;
  const row = (side, i, head = state.head) => {
    const {view, layer} = state, m = matrix(view, layer, head), S = view.keys.length;
    return side == "queries" ? m.subarray(i * S, (i + 1) * S) : range(view.queries.length).map(t => m[t * S + i]);
  };
  const largest = (values, count) => range(values.length).filter(i => values[i] > 0)
    .sort((a, b) => values[b] - values[a]).slice(0, count);
  const other = side => side == "queries" ? "keys" : "queries";
  const headName = head => head < 0 ? "all heads" : `head ${head + 1}`;

  // Drawing

  const css = name => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  const rgb = name => css(name).match(/[0-9a-f]{2}/gi).map(x => parseInt(x, 16));
  const picture = (m, T, S) => {
    const image = new ImageData(S, T), paper = rgb("panel"), ink = rgb("blue");
    m.forEach((b, i) => {
      for (const c of [0, 1, 2]) image.data[4 * i + c] = paper[c] + (ink[c] - paper[c]) * b / 255;
      image.data[4 * i + 3] = 255;
    });
    const canvas = document.createElement("canvas");
    canvas.width = S; canvas.height = T;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  const text = side => {
    const box = $(side), tokens = state.view[side];
    box.replaceChildren();
    box.classList.toggle("long", tokens.length > 60);
    let word = null;
    tokens.forEach((token, i) => {
      const mark = special(token) || plain(token) == "·" || plain(token) == "↵";
      if (/^[▁ ]/.test(token) || special(token) || !word || word.textContent.length + token.length > 20) {
        if (/^[▁ ]/.test(token) || special(token)) box.append(" ");
        word = make("span", undefined, box, "word"); // is not broken
      }
      const node = make("span", plain(token), word, "tok");
      node.classList.toggle("mark", mark);
      node.setAttribute("role", "option");
      node.dataset.i = i;
      node.dataset.side = side;
      if (/\n/.test(token)) { make("br", undefined, box); word = null; }
    });
  };
  const nodes = side => $(side).querySelectorAll(".tok");

  const heads = () => {
    const {view} = state, box = $("heads"), more = view.heads > 1;
    box.replaceChildren();
    box.style.gridTemplateColumns = `auto repeat(${view.heads + more}, auto)`;
    box.style.setProperty("--thumb", view.heads > 8 ? "22px" : view.heads > 4 ? "28px" : "44px");
    make("span", "layer", box);
    for (const head of range(view.heads + more).map(i => i - more)) make("span", head < 0 ? "all" : head + 1, box);
    for (const layer of range(view.layers)) {
      make("span", layer + 1, box);
      for (const head of range(view.heads + more).map(i => i - more)) {
        const button = make("button", undefined, box), canvas = make("canvas", undefined, button);
        button.type = "button";
        button.setAttribute("role", "radio");
        button.dataset.layer = layer;
        button.dataset.head = head;
        const words = head < 0 ? "" : mostly(view, layer, head, ", mostly ");
        button.setAttribute("aria-label", `layer ${layer + 1}, ${headName(head)}${words}`);
        button.title = button.getAttribute("aria-label");
        const T = view.queries.length, S = view.keys.length, image = picture(matrix(view, layer, head), T, S);
        canvas.width = canvas.height = 88;
        const pen = canvas.getContext("2d");
        pen.imageSmoothingEnabled = T > 88 || S > 88;
        pen.drawImage(image, 0, 0, 88, 88);
      }
    }
  };

  const figures = () => {
    const {view} = state, body = $("figures");
    body.replaceChildren();
    view.figures.forEach(([entropy, distance, near, key, share, words], i) => {
      const line = make("tr", undefined, body);
      make("td", Math.floor(i / view.heads) + 1, line);
      make("td", i % view.heads + 1, line);
      make("td", words || "–", line);
      for (const x of [entropy.toFixed(2), distance.toFixed(1), `${Math.round(near * 100)} %`]) make("td", x, line, "n");
      make("td", plain(view.keys[key]), line, "token");
      make("td", `${Math.round(share * 100)} %`, line, "n");
    });
  };

  const mostly = (view, layer, head, before) => {
    const words = view.figures[layer * view.heads + head][5];
    return words && before + words;
  };
  let place = null; // of the map's cells
  const map = () => {
    const {view} = state, canvas = $("map"), T = view.queries.length, S = view.keys.length;
    const pen = canvas.getContext("2d"), font = size => `${size}px system-ui, "DejaVu Sans", sans-serif`;
    pen.font = font(12);
    const short = token => plain(token).slice(0, 18), wide = tokens => Math.max(...tokens.map(t => pen.measureText(short(t)).width));
    const room = canvas.parentElement.clientWidth;
    const left = Math.ceil(wide(view.queries)) + 10, above = Math.ceil(wide(view.keys)) + 10;
    let cell = Math.min(28, Math.floor((room - left - 2) / S));
    const labels = cell >= 12;
    if (!labels) cell = Math.max(2, Math.min(12, Math.floor(Math.min(room - 2, 800) / S)));
    place = {x: labels ? left : 1, y: labels ? above : 1, cell};
    const width = place.x + S * cell + 1, height = place.y + T * cell + 1, scale = window.devicePixelRatio || 1;
    canvas.width = width * scale; canvas.height = height * scale;
    canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
    pen.scale(scale, scale);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture(matrix(view, state.layer, state.head), T, S), place.x, place.y, S * cell, T * cell);
    const {side, token, cross} = current(), on = {queries: side == "queries" ? token : cross, keys: side == "keys" ? token : cross};
    if (labels) {
      pen.strokeStyle = css("paper");
      pen.beginPath();
      for (const i of range(S + 1)) { pen.moveTo(place.x + i * cell, place.y); pen.lineTo(place.x + i * cell, place.y + T * cell); }
      for (const i of range(T + 1)) { pen.moveTo(place.x, place.y + i * cell); pen.lineTo(place.x + S * cell, place.y + i * cell); }
      pen.stroke();
      pen.font = font(12);
      pen.textBaseline = "middle";
      const ink = (kind, i) => css(on[kind] === i ? "orange" : special(view[kind][i]) ? "muted" : "ink");
      view.queries.forEach((token, t) => {
        pen.textAlign = "right"; pen.fillStyle = ink("queries", t);
        pen.fillText(short(token), place.x - 6, place.y + (t + .5) * cell);
      });
      view.keys.forEach((token, s) => {
        pen.save();
        pen.transform(1, 0, 0, 1, place.x + (s + .5) * cell, place.y - 6);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left"; pen.fillStyle = ink("keys", s);
        pen.fillText(short(token), 0, 0);
        pen.restore();
      });
    }
    pen.strokeStyle = css("orange");
    pen.lineWidth = cell > 8 ? 2 : 1;
    if (side == "queries") pen.strokeRect(place.x, place.y + token * cell, S * cell, cell);
    else pen.strokeRect(place.x + token * cell, place.y, cell, T * cell);
    canvas.setAttribute("aria-label", `Weights of layer ${state.layer + 1}, ${headName(state.head)}, as a heat map`);
  };

  const fan = () => {
    const {view} = state, {side, token} = current(), svg = $("fan"), frame = $("reading").getBoundingClientRect();
    svg.replaceChildren();
    const from = nodes(side)[token].getBoundingClientRect();
    const line = (to, byte, stroke, shift) => {
      const end = nodes(other(side))[to].getBoundingClientRect(), up = side == "keys";
      const x1 = from.x + from.width / 2 - frame.x + shift, x2 = end.x + end.width / 2 - frame.x + shift;
      const y1 = (up ? from.top - 2 : from.bottom + 2) - frame.y, y2 = (up ? end.bottom : end.top) - frame.y;
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path"), bend = (y2 - y1) / 2, w = (byte / 255) ** 2;
      path.setAttribute("d", `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`);
      path.style.stroke = stroke;
      path.style.strokeWidth = 1 + 5 * w;
      path.style.opacity = .3 + .6 * w;
      svg.append(path);
    };
    if (state.head >= 0 || view.heads == 1) {
      const values = row(side, token);
      for (const i of largest(values, 8)) if (values[i] > 50) line(i, values[i], "var(--orange)", 0);
    } else for (const head of range(view.heads)) {
      const values = row(side, token, head), [best] = largest(values, 1);
      if (best !== undefined && values[best] > 100) line(best, values[best], colour(head), (head - (view.heads - 1) / 2) * Math.min(3, 16 / view.heads));
    }
  };

  const every = () => {
    const {view, layer, head: chosen} = state, {side, token} = current(), box = $("every");
    $("everyName").textContent = `${view.heads > 1 ? `Every head of layer ${layer + 1}` : "The head"}, at ${quoted(view[side][token])}`;
    const again = box.contains(document.activeElement) ? document.activeElement.dataset.head : null;
    box.replaceChildren();
    for (const head of range(view.heads)) {
      const values = row(side, token, head), [best] = largest(values, 1), button = make("button", undefined, box);
      button.type = "button";
      button.dataset.head = head;
      button.setAttribute("aria-pressed", chosen == head);
      button.style.setProperty("--c", colour(head));
      make("i", undefined, button);
      make("small", `head ${head + 1}`, button);
      make("b", best === undefined ? "nothing" : plain(view[other(side)][best]), button);
      make("em", best === undefined ? "" : percent(values[best]), button);
      make("u", undefined, button).style.width = best === undefined ? 0 : `${(values[best] / 255) ** 2 * 100}%`;
      if (again == head) button.focus();
    }
  };

  const says = () => {
    const {view} = state, {side, token, cross} = current(), box = $("says"), tokens = view[other(side)], values = row(side, token);
    box.replaceChildren();
    make("b", quoted(view[side][token]), box);
    if (cross !== undefined) {
      box.append(" takes ");
      make("b", percent(values[cross]), box);
      return box.append(` from ${quoted(tokens[cross])}.`);
    }
    const best = largest(values, 5).filter((i, n) => !n || values[i] > 35);
    box.append(!best.length ? " is looked at by nothing." : side == "queries" ? " takes " : " is looked at by ");
    best.forEach((i, n) => {
      if (n) box.append(", ");
      const part = make("span", undefined, box);
      if (side == "queries") {
        make("b", percent(values[i]), part);
        part.append(` from ${quoted(tokens[i])}`);
      } else {
        part.append(`${quoted(tokens[i])} with `);
        make("b", percent(values[i]), part);
      }
    });
    if (best.length) box.append(".");
  };

  const point = () => { // after another token
    const {side, token, cross} = current(), values = row(side, token);
    nodes(other(side)).forEach((node, i) => {
      node.style.setProperty("--w", values[i] / 255);
      node.classList.toggle("on", cross === i);
      node.setAttribute("aria-selected", "false");
    });
    nodes(side).forEach((node, i) => {
      node.style.setProperty("--w", 0);
      node.classList.toggle("on", i == token);
      node.setAttribute("aria-selected", i == token);
    });
    for (const s of ["queries", "keys"]) nodes(s).forEach((node, i) => { node.tabIndex = s == state.side && i == state.token ? 0 : -1; });
    says(); every(); fan(); map();
  };
  const choose = () => { // after another head
    const {view, layer, head} = state;
    for (const button of $("heads").querySelectorAll("button")) {
      const on = button.dataset.layer == layer && button.dataset.head == head;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
    const words = head < 0 ? `: the mean of ${view.heads} heads; the lines show where each of them looks most` :
      mostly(view, layer, head, " looks mostly at ");
    $("does").textContent = `Layer ${layer + 1}, ${headName(head)}${words}.`;
    $("mapName").textContent = `Layer ${layer + 1}, ${headName(head)}, as a whole`;
    point();
  };
  const show = view => { // after another kind of attention
    over = null;
    Object.assign(state, {view, layer: view.layers - 1, head: view.heads > 1 ? -1 : 0, side: "queries"});
    state.token = clearest();
    for (const tab of $("tabs").children) {
      const on = views[tab.dataset.view] == view;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
    }
    $("note").textContent = view.note + (view.kind == "top" ? ` Only the ${view.keep} largest weights of each row are in this page.` : "");
    $("queriesName").textContent = view.queriesName;
    $("keysName").textContent = view.keysName;
    text("queries"); text("keys"); heads(); figures(); choose();
  };
  const clearest = () => { // the word to begin with: long, and sure of what it looks at
    let best = 0, found = -1;
    state.view.queries.forEach((token, t) => {
      if (special(token)) return;
      const values = row("queries", t), [key] = largest(values, 1);
      const worth = key === undefined ? 0 : values[key] * (special(state.view.keys[key]) ? .3 : 1) * Math.min(plain(token).length, 6);
      if (worth > found) [found, best] = [worth, t];
    });
    return best;
  };

  // What a person does

  const keep = (side, token, focus) => {
    over = null;
    Object.assign(state, {side, token});
    point();
    if (focus) nodes(side)[token].focus();
  };
  const at = event => event.target.closest?.(".tok");
  for (const side of ["queries", "keys"]) {
    $(side).addEventListener("pointerover", event => {
      if (!at(event)) return;
      over = {side, token: +at(event).dataset.i};
      point();
    });
    $(side).addEventListener("pointerleave", () => { over = null; point(); });
    $(side).addEventListener("click", event => { if (at(event)) keep(side, +at(event).dataset.i, true); });
    $(side).addEventListener("focusin", event => {
      const token = at(event) && +at(event).dataset.i;
      if (at(event) && (side != state.side || token != state.token || over)) keep(side, token);
    });
    $(side).addEventListener("keydown", event => {
      const {view} = state, last = view[side].length - 1, size = view[other(side)].length - 1;
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key], layer = {ArrowUp: -1, ArrowDown: 1}[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (step) keep(side, Math.min(Math.max(state.token + step, 0), last), true);
      else if (event.key == "Home") keep(side, 0, true);
      else if (event.key == "End") keep(side, last, true);
      else if (layer && event.shiftKey) pick(Math.min(Math.max(state.layer + layer, 0), view.layers - 1), state.head);
      else if (layer) keep(layer < 0 ? "queries" : "keys", layer < 0 == (side == "queries") ? state.token : Math.round(state.token * size / (last || 1)), true);
      else if (/^[0-9]$/.test(event.key) && +event.key <= view.heads) pick(state.layer, view.heads > 1 ? event.key - 1 : 0);
      else return;
      event.preventDefault();
    });
  }
  const pick = (layer, head, focus) => {
    Object.assign(state, {layer, head});
    choose();
    if (focus) $("heads").querySelector("[aria-checked=true]").focus();
  };
  $("heads").addEventListener("click", event => {
    const button = event.target.closest("button");
    if (button) pick(+button.dataset.layer, +button.dataset.head, true);
  });
  $("heads").addEventListener("keydown", event => {
    const {view, layer, head} = state, step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    pick(Math.min(Math.max(layer + step[0], 0), view.layers - 1), Math.min(Math.max(head + step[1], view.heads > 1 ? -1 : 0), view.heads - 1), true);
  });
  $("every").addEventListener("click", event => {
    const button = event.target.closest("button");
    if (button) pick(state.layer, state.head == button.dataset.head && state.view.heads > 1 ? -1 : +button.dataset.head);
  });
  views.forEach((view, i) => {
    const tab = make("button", view.name, $("tabs"));
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.dataset.view = i;
    tab.addEventListener("click", () => show(view));
  });
  $("tabs").addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key], to = views.indexOf(state.view) + step;
    if (!views[to]) return;
    show(views[to]);
    $("tabs").children[to].focus();
  });
  const cell = event => {
    const {x, y} = $("map").getBoundingClientRect(), {view} = state;
    const s = Math.floor((event.clientX - x - place.x) / place.cell), t = Math.floor((event.clientY - y - place.y) / place.cell);
    return t in view.queries && s in view.keys ? {side: "queries", token: t, cross: s} : null;
  };
  const look = event => {
    const found = cell(event);
    if (found?.token === over?.token && found?.cross === over?.cross) return;
    over = found;
    point();
  };
  $("map").addEventListener("pointermove", look);
  $("map").addEventListener("pointerdown", look);
  $("map").addEventListener("pointerleave", () => { over = null; point(); });
  $("map").addEventListener("click", event => { const found = cell(event); if (found) Object.assign(state, {side: "queries", token: found.token}); });
  let waiting = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { fan(); map(); }); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { heads(); choose(); });
  $("tabs").hidden = views.length < 2;
  $("numbers").open = innerWidth >= 980 && views[0].figures.length <= 16;
  $("facts").textContent = facts;
  show(views[0]);
}
