"use strict";
// What stands in the page: explorer rows, images, and where each cell comes from. See reports/site.py.
const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

// --- provenance of a cell ---
const dialog = document.getElementById("provenance");
const pairs = (entries) => make("dl", {}, ...entries.flatMap(([name, value]) =>
  [make("dt", {}, name), make("dd", {}, String(value))]));
const showOrigin = (cell) => {
  const [method, scale, metric] = cell.split("|"), from = data.provenance, known = from.methods[method];
  document.getElementById("provenance-title").textContent = `${known.title} ×${scale}, ${metric}`;
  const runs = [...new Set([...(from.made[`${scale}|${method}|restored`] ?? []), ...(from.made[`${scale}|${method}|${metric}`] ?? [])])];
  const body = dialog.querySelector("div");
  body.replaceChildren(pairs([
    ["method", method], ["weights", known.weights], ["code and settings", known.digest], ["settings", known.settings || "none"],
    ...Object.entries(known.files).map(([name, digest]) => [`file ${name}`, digest]), ["licence", known.licence],
    ...Object.entries(from.shared)]),
  ...runs.map((name) => {
    const run = from.runs[name];
    return make("details", {}, make("summary", {}, `run ${name.slice(0, 12)}: commit ${(run.commit ?? "unknown").slice(0, 12)}` +
      (run.dirty ? " and changes" : "")), pairs([["python", run.python], ["device", run.device], ["threads", run.threads],
      ...Object.entries(run.packages ?? {})]));
  }));
  dialog.showModal();
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-cell]");
  if (button) showOrigin(button.dataset.cell);
});

// --- explorer: the filters stand in the address, so that a view can be passed on ---
const filters = document.getElementById("filters");
if (filters && data.explorer) {
  const { rows, images, methods, metrics, samples, cells, folder } = data.explorer;
  const [ID, PERSON, SCALE, METHOD, GT, REFERENCE, LR, SR, VALUES, WHY] = [...Array(10).keys()];
  const field = (name) => filters.elements[name];
  const fill = (name, options) => field(name).append(...options.map(([value, text]) => make("option", { value }, text)));
  const natural = (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
  // A large run lies beside the page: an image is a file, and the rows of a cell are a script, as a page that is
  // opened as a file may read nothing else.
  const source = (place) => folder ? `${folder}/images/${place.slice(0, 2)}/${place}.webp` : `data:image/webp;base64,${images[place]}`;
  const waiting = new Map(Object.entries(cells ?? {})), loading = new Map();
  window.explorerRows = (cell, found) => {
    const [scale, method] = cell.split("|");
    for (const [at, lr, sr, values, why] of found) {
      const [id, person, gt, reference] = samples[at];
      rows.push([id, person, Number(scale), method, gt, reference, lr, sr, values, why]);
    }
    waiting.delete(cell);
  };
  const load = (cell) => {
    if (!loading.has(cell)) loading.set(cell, new Promise((done, fail) => {
      const src = `${folder}/${waiting.get(cell)}`;
      document.head.append(make("script", { src, onload: done, onerror: () => fail(new Error(`${src} must lie beside this page`)) }));
    }).finally(() => loading.delete(cell)));
    return loading.get(cell);
  };
  const lacking = () => [...waiting.keys()].filter((cell) => {
    const [scale, method] = cell.split("|");
    return scale === field("scale").value && (!field("method").value || field("method").value === method);
  });
  fill("person", [...new Set((samples ?? rows).map((r) => r[PERSON]))].sort(natural).map((p) => [p, p]));
  fill("scale", [...new Set(folder ? Object.keys(cells).map((c) => c.split("|")[0]) : rows.map((r) => r[SCALE]))].map((s) => [s, `×${s}`]));
  fill("method", Object.entries(methods));
  fill("metric", metrics.map((m, i) => [i, m.title]));
  if (folder) field("method").value = Object.keys(methods)[0];
  const cards = document.getElementById("cards"), more = document.getElementById("more"), PAGE = 48;
  let shown = PAGE, chosen = null;
  const text = (metric, value) => value === null ? "n/a"
    : metric.percent ? `${(100 * value).toFixed(metric.digits)}%` : value.toFixed(metric.digits);
  const keyOf = (row) => [row[ID], row[SCALE], row[METHOD]].join("|");

  const selected = () => {
    const at = Number(field("metric").value), worst = metrics[at].direction * (field("best").checked ? -1 : 1);
    return rows.filter((r) => (!field("person").value || r[PERSON] === field("person").value)
      && String(r[SCALE]) === field("scale").value && (!field("method").value || r[METHOD] === field("method").value))
      .sort((a, b) => {
        const [x, y] = [a[VALUES][at], b[VALUES][at]];
        if (x === null || y === null) return ((y === null) - (x === null)) * (field("best").checked ? -1 : 1);
        return worst * (x - y) || natural(keyOf(a), keyOf(b));
      });
  };
  const detail = (row) => {
    const sides = [["LR", row[LR]], ["Restored", row[SR]], ["Ground truth", row[GT]], ["Reference", row[REFERENCE]]]
      .filter(([, place]) => place !== null);
    const names = sides.map(([name]) => name);
    const halves = [make("img", { alt: "" }), make("img", { alt: "" })];
    const frame = make("div", { class: "slider" }, ...halves);
    const choose = (which, start) => {
      const select = make("select", { "aria-label": which ? "right image" : "left image", onchange: () => show(which) },
        ...names.map((name) => make("option", { value: name, ...(name === start ? { selected: "" } : {}) }, name)));
      const show = () => { const at = names.indexOf(select.value); halves[which].src = source(sides[at][1]);
        halves[which].alt = `${names[at]} of ${row[ID]}`; };
      show();
      return select;
    };
    const range = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "boundary between the two images",
      oninput: (event) => frame.style.setProperty("--cut", `${event.target.value}%`) });
    const lines = metrics.map((m, i) => make("tr", {}, make("th", { scope: "row" }, m.title),
      make("td", {}, text(m, row[VALUES][i])), make("td", {}, m.id)));
    return [make("h3", {}, `${methods[row[METHOD]]} ×${row[SCALE]}: ${row[ID]}`), frame, range,
      make("p", {}, choose(0, row[SR] === null ? "LR" : "Restored"), " | ", choose(1, "Ground truth")),
      ...(row[WHY] ? [make("p", { class: "why" }, `failed: ${row[WHY]}`)] : []),
      make("table", {}, make("caption", {}, "All metrics of this image"), make("tbody", {}, ...lines))];
  };
  const address = () => {
    const state = new URLSearchParams([...new FormData(filters)]);
    if (chosen) state.set("sample", chosen);
    history.replaceState(null, "", `#explorer?${state}`);
  };
  const open = (row) => {
    chosen = keyOf(row);
    document.getElementById("detail").replaceChildren(...detail(row));
    for (const button of cards.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.key === chosen);
  };
  const draw = () => {
    const cells = lacking();
    if (!cells.length) return paint();
    document.getElementById("count").textContent = "loading";
    return Promise.all(cells.map(load)).then(paint, (fault) => {
      document.getElementById("count").textContent = fault.message;
    });
  };
  const paint = () => {
    const found = selected(), at = Number(field("metric").value), metric = metrics[at];
    cards.replaceChildren(...found.slice(0, shown).map((row) => make("li", {}, make("button", {
      type: "button", "data-key": keyOf(row), "aria-pressed": keyOf(row) === chosen, onclick: () => { open(row); address(); },
    }, row[SR] === null ? make("span", { class: "failed" }, "failed")
      : make("img", { src: source(row[SR]), alt: `${methods[row[METHOD]]} of ${row[ID]}`, loading: "lazy" }),
    `${row[ID]}`, make("br"), `${methods[row[METHOD]]}`, make("br"), `${metric.title} ${text(metric, row[VALUES][at])}`))));
    document.getElementById("count").textContent = `${found.length} restorations, ${Math.min(shown, found.length)} shown`;
    more.hidden = found.length <= shown;
  };
  filters.addEventListener("input", () => { shown = PAGE; draw(); address(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { shown += PAGE; draw(); });
  const state = new URLSearchParams(location.hash.split("?")[1] ?? "");
  for (const [name, value] of state) {
    if (field(name)?.type === "checkbox") field(name).checked = value === "on";
    else if (field(name)) field(name).value = value;
  }
  const restore = () => {
    const wanted = rows.find((row) => keyOf(row) === state.get("sample"));
    if (wanted) open(wanted);
  };
  draw()?.then(restore);
  restore();
  if (location.hash.startsWith("#explorer?")) document.getElementById("explorer").scrollIntoView();
}
