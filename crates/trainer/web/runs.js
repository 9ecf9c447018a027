// All runs: a table, the curves of those that are chosen as they grow, and all about one.

import { COLOURS, chart, element } from "./chart.js";

/** How often the table is asked for anew, in milliseconds. */
const PAUSE = 2000;
/** Runs whose curves are shown: their journals as they grow, by name. */
const followed = new Map();
let known = [];

function percent(figures) {
  return figures ? `${(100 * figures.accuracy).toFixed(2)}%` : "–";
}

function cell(text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function tell(problem) {
  document.querySelector("#problem").textContent = problem;
}

async function asked(address) {
  const answer = await fetch(address);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  return found;
}

async function list() {
  try {
    const runs = await asked("/api/runs");
    if (known.length === 0 && runs.length > 0) follow(runs[0].id);
    known = runs;
    tell("");
    const rows = runs.map(row);
    const body = document.querySelector("#runs tbody");
    const focused = document.activeElement?.dataset?.focus;
    body.replaceChildren(...rows);
    if (focused) body.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    for (const id of followed.keys()) if (!runs.some((run) => run.id === id)) leave(id);
  } catch (error) {
    tell(error.message || "The server does not answer.");
  }
}

function row(run) {
  const made = document.createElement("tr");
  made.dataset.run = run.id;
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = followed.has(run.id);
  box.dataset.focus = `box ${run.id}`;
  box.setAttribute("aria-label", `Show the curves of ${run.id}`);
  box.addEventListener("change", () => (box.checked ? follow(run.id) : leave(run.id)));
  const name = document.createElement("button");
  name.type = "button";
  name.textContent = run.id;
  name.dataset.focus = `name ${run.id}`;
  name.addEventListener("click", () => {
    follow(run.id);
    box.checked = true;
    detail(run.id);
  });
  const [first, second] = [document.createElement("td"), document.createElement("td")];
  first.append(box);
  second.append(name);
  second.className = "words";
  const state = cell(run.error ? `${run.state}: ${run.error}` : run.state, `words ${run.state}`);
  made.append(
    first, second, state, cell(`${run.epochs} of ${run.epochs_total}`), cell(percent(run.validation)),
    cell(percent(run.test)), cell(run.parameters),
  );
  return made;
}

function follow(id) {
  if (followed.has(id)) return;
  const source = new EventSource(`/api/runs/${encodeURIComponent(id)}/events`);
  const run = { source, entries: [] };
  followed.set(id, run);
  source.addEventListener("entry", (event) => {
    run.entries.push(JSON.parse(event.data));
    redraw();
  });
  source.addEventListener("again", () => (run.entries = []));
  source.addEventListener("gone", () => source.close());
  // A connection that is made anew tells all from the beginning.
  source.addEventListener("open", () => (run.entries = []));
  redraw();
}

function leave(id) {
  followed.get(id)?.source.close();
  followed.delete(id);
  redraw();
}

let isDrawing = false;

function redraw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    curves();
  });
}

/** Training loss by batches, validation by epochs, of all that are followed. */
function curves() {
  document.querySelector("#curves").hidden = followed.size === 0;
  const [losses, accuracies, legend] = [[], [], []];
  let place = 0;
  for (const [id, { entries }] of followed) {
    const colour = COLOURS[place++ % COLOURS.length];
    const epochs = entries.filter((entry) => entry.event === "epoch");
    const batches = entries.filter((entry) => entry.event === "batches");
    const points = (value) => epochs.filter(value).map((epoch) => [epoch.steps, value(epoch)]);
    const learned = batches.length > 0
      ? batches.map(({ steps, loss }) => [steps, loss])
      : points((epoch) => epoch.train?.loss);
    losses.push({ colour, isDashed: true, points: learned });
    losses.push({ colour, points: points((epoch) => epoch.validation?.loss) });
    accuracies.push({ colour, isDashed: true, points: points((epoch) => epoch.train?.accuracy) });
    accuracies.push({ colour, points: points((epoch) => epoch.validation?.accuracy) });
    legend.push(entry(id, colour, "train", true), entry(id, colour, "validation", false));
  }
  const isSome = ({ points }) => points.length > 0;
  chart(document.querySelector("#loss"), losses.filter(isSome));
  chart(document.querySelector("#accuracy"), accuracies.filter(isSome));
  document.querySelector("#legend").replaceChildren(...legend);
}

function entry(id, colour, split, isDashed) {
  const made = document.createElement("li");
  const sample = element("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" });
  const line = { x1: 0, x2: 24, y1: 5, y2: 5, stroke: colour, "stroke-width": 3 };
  if (isDashed) line["stroke-dasharray"] = "6 4";
  sample.append(element("line", line));
  made.append(sample, ` ${id}, ${split}`);
  return made;
}

async function detail(id) {
  try {
    const run = await asked(`/api/runs/${encodeURIComponent(id)}`);
    document.querySelector("#detail").hidden = false;
    document.querySelector("#name").textContent = id;
    document.querySelector("#about").textContent = `${run.preset} on ${run.data}. ${run.about}`;
    const report = document.querySelector("#report");
    report.href = `/runs/${encodeURIComponent(id)}/report`;
    report.hidden = !run.evaluation;
    document.querySelector("#layers tbody").replaceChildren(...run.layers.map((layer) => {
      const made = document.createElement("tr");
      made.append(
        cell(layer.name, "words"), cell(layer.operation, "words"), cell(`[${layer.output.join(", ")}]`, "words"),
        cell(layer.parameters),
      );
      return made;
    }));
    confusion(run.evaluation);
    document.querySelector("#settings").textContent = run.settings;
    document.querySelector("#detail").scrollIntoView({ block: "nearest" });
  } catch (error) {
    tell(error.message || "The server does not answer.");
  }
}

function confusion(evaluation) {
  const table = document.querySelector("#confusion");
  if (!evaluation) {
    table.replaceChildren(document.createElement("caption"));
    table.firstChild.textContent = "Not judged yet.";
    return;
  }
  const names = evaluation.classes.map((figures) => figures.class);
  const head = document.createElement("tr");
  head.append(document.createElement("td"), ...names.map((name) => heading(name, "col")));
  const most = Math.max(1, ...evaluation.confusion.flatMap((counts, i) => counts.filter((_, j) => i !== j)));
  const rows = evaluation.confusion.map((counts, i) => {
    const made = document.createElement("tr");
    made.append(heading(names[i], "row"));
    made.append(...counts.map((count, j) => {
      const place = cell(count, i === j ? "hit" : "miss");
      // The more, the stronger.
      if (i !== j) place.style.setProperty("--share", `${Math.round((60 * count) / most)}%`);
      return place;
    }));
    return made;
  });
  table.replaceChildren(head, ...rows);
}

function heading(name, scope) {
  const made = document.createElement("th");
  made.scope = scope;
  made.textContent = name;
  return made;
}

list();
setInterval(list, PAUSE);
