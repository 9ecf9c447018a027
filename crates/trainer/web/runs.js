// All runs: a table, the curves of those that are chosen as they grow, and all about one.

import { COLOURS, chart, element } from "./chart.js";

/** How often the table is asked for anew, in milliseconds. */
const PAUSE = 2000;
/** Journals that are followed as they grow: browsers keep few connections to a server. */
const MAX_STREAMS = 3;
/** Runs whose curves are shown: `{ entries, source, read }` by name. */
const followed = new Map();
let known = [];
/** The run that all is told about. */
let shown = null;
/** The table's rows by name: each is made once, so that a click on it never meets another one. */
const rows = new Map();

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

/** What the server answers; without an answer, or with a problem, an error that says so. */
async function asked(address) {
  const answer = await fetch(address).catch(() => null);
  if (!answer) throw new Error("The server does not answer.");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  return found;
}

/** Brings the table up to date, and again after a while. */
async function list() {
  try {
    if (!document.hidden) update(await asked("/api/runs"));
    tell("");
  } catch (error) {
    tell(error.message);
  }
  setTimeout(list, PAUSE);
}

function update(runs) {
  if (JSON.stringify(runs) !== JSON.stringify(known)) {
    const isFirst = known.length === 0;
    known = runs;
    if (isFirst) follow(runs[0].id);
    const body = document.querySelector("#runs tbody");
    const listed = runs.map(row);
    if (listed.length !== body.children.length || listed.some((made, i) => made !== body.children[i])) {
      const focused = document.activeElement;
      body.replaceChildren(...listed);
      if (body.contains(focused)) focused.focus();
    }
    for (const id of rows.keys()) if (!runs.some((run) => run.id === id)) rows.delete(id);
    for (const id of followed.keys()) if (!runs.some((run) => run.id === id)) leave(id);
    if (runs.some((run) => run.id === shown)) detail(shown);
    else hide();
  }
  catchUp();
}

/** A run's row, with its figures as they are now. */
function row(run) {
  if (!rows.has(run.id)) rows.set(run.id, emptyRow(run.id));
  const made = rows.get(run.id);
  made.querySelector("input").checked = followed.has(run.id);
  const state = cell(run.error ? `${run.state}: ${run.error}` : run.state, `words ${run.state}`);
  while (made.children.length > 2) made.lastChild.remove();
  made.append(
    state, cell(`${run.epochs} of ${run.epochs_total}`), cell(percent(run.validation)), cell(percent(run.test)),
    cell(run.parameters),
  );
  return made;
}

/** What one clicks on: a box for the curves, and the name for all about the run. */
function emptyRow(id) {
  const made = document.createElement("tr");
  made.dataset.run = id;
  const box = document.createElement("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", `Show the curves of ${id}`);
  box.addEventListener("change", () => (box.checked ? follow(id) : leave(id)));
  const name = document.createElement("button");
  name.type = "button";
  name.textContent = id;
  name.addEventListener("click", () => {
    follow(id);
    box.checked = true;
    detail(id);
  });
  const [first, second] = [document.createElement("td"), document.createElement("td")];
  first.append(box);
  second.append(name);
  second.className = "words";
  made.append(first, second);
  return made;
}

function follow(id) {
  if (followed.has(id)) return;
  followed.set(id, { entries: [], source: null, read: "" });
  catchUp();
}

function leave(id) {
  followed.get(id)?.source?.close();
  followed.delete(id);
  catchUp();
}

/** Streams what running runs report, as far as they may; of the others, reads what is new. */
function catchUp() {
  let streams = 0;
  for (const [id, run] of followed) {
    const row = known.find((row) => row.id === id);
    const isStreamed = row?.state === "running" && !document.hidden && streams < MAX_STREAMS;
    streams += isStreamed;
    if (!isStreamed) {
      run.source?.close();
      run.source = null;
      read(id, run, `${row?.state} ${row?.epochs}`);
    } else if (!run.source) {
      stream(id, run);
    }
  }
  redraw();
}

function stream(id, run) {
  const source = new EventSource(`/api/runs/${encodeURIComponent(id)}/events`);
  // A connection that is made anew, like a journal that was put back, tells all from the beginning.
  for (const event of ["open", "again"]) source.addEventListener(event, () => (run.entries = []));
  source.addEventListener("entry", (event) => {
    run.entries.push(JSON.parse(event.data));
    redraw();
  });
  // What ends for good is begun anew with the next update, if it still runs.
  const end = () => {
    source.close();
    if (run.source === source) run.source = null;
  };
  source.addEventListener("gone", end);
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && end());
  run.source = source;
  run.read = "";
}

/** Reads a journal, unless that was done in this state. */
async function read(id, run, state) {
  if (run.read === state) return;
  run.read = state;
  try {
    const entries = await asked(`/api/runs/${encodeURIComponent(id)}/metrics`);
    if (!run.source) run.entries = entries;
    redraw();
  } catch {
    // The next update tries again.
    run.read = "";
  }
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
    const points = (value) => epochs.filter((epoch) => value(epoch) != null).map((epoch) => [epoch.steps, value(epoch)]);
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
  const isOther = shown !== id;
  shown = id;
  let run;
  try {
    run = await asked(`/api/runs/${encodeURIComponent(id)}`);
  } catch (error) {
    tell(error.message);
    return;
  }
  // Meanwhile another one may have been asked for.
  if (shown !== id) return;
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
  if (isOther) document.querySelector("#name").focus();
}

function hide() {
  shown = null;
  document.querySelector("#detail").hidden = true;
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
document.addEventListener("visibilitychange", catchUp);
