// The page of runs: a table, live curves of the selected runs, and the details of one run.

import { COLORS, chart, element } from "./chart.js";

/** Interval at which the table is updated, in milliseconds. */
const UPDATE_INTERVAL = 2000;
/** Maximum number of event streams. Browsers limit the number of connections per server. */
const MAX_STREAMS = 3;
/** The selected runs, whose curves are shown: `{ events, source, loadedState }` by name. */
const selected = new Map();
/** The runs of the last update. */
let runs = [];
/** The name of the run whose details are shown. */
let shown = null;
/** The rows of the table by name. Rows are reused, so that an update never moves a row during a click. */
const rows = new Map();

function percent(metrics) {
  return metrics ? `${(100 * metrics.accuracy).toFixed(2)}%` : "–";
}

function cell(text, className) {
  const td = document.createElement("td");
  td.textContent = text;
  if (className) td.className = className;
  return td;
}

function showError(message) {
  document.querySelector("#problem").textContent = message;
}

/** Returns the JSON of a response. Throws an error if there is no response, or it is an error. */
async function fetchJson(address) {
  const response = await fetch(address).catch(() => null);
  if (!response) throw new Error("The server does not respond.");
  const json = await response.json();
  if (!response.ok) throw new Error(json.detail);
  return json;
}

/** Updates the table periodically. */
async function list() {
  try {
    if (!document.hidden) update(await fetchJson("/api/runs"));
    showError("");
  } catch (error) {
    showError(error.message);
  }
  setTimeout(list, UPDATE_INTERVAL);
}

function update(newRuns) {
  if (JSON.stringify(newRuns) !== JSON.stringify(runs)) {
    const isFirst = runs.length === 0;
    runs = newRuns;
    if (isFirst) select(runs[0].id);
    const body = document.querySelector("#runs tbody");
    const trs = runs.map(row);
    if (trs.length !== body.children.length || trs.some((tr, i) => tr !== body.children[i])) {
      const focused = document.activeElement;
      body.replaceChildren(...trs);
      if (body.contains(focused)) focused.focus();
    }
    for (const id of rows.keys()) if (!runs.some((run) => run.id === id)) rows.delete(id);
    for (const id of selected.keys()) if (!runs.some((run) => run.id === id)) deselect(id);
    if (runs.some((run) => run.id === shown)) showDetails(shown);
    else hideDetails();
  }
  updateEvents();
}

/** Returns the row of a run, with its current metrics. */
function row(run) {
  if (!rows.has(run.id)) rows.set(run.id, newRow(run.id));
  const tr = rows.get(run.id);
  tr.querySelector("input").checked = selected.has(run.id);
  const state = cell(run.error ? `${run.state}: ${run.error}` : run.state, `words ${run.state}`);
  while (tr.children.length > 2) tr.lastChild.remove();
  tr.append(
    state, cell(`${run.epochs} of ${run.epochs_total}`), cell(percent(run.validation)), cell(percent(run.test)),
    cell(run.parameters),
  );
  return tr;
}

/** Creates a row with a checkbox, which selects the run, and the name, which shows its details. */
function newRow(id) {
  const tr = document.createElement("tr");
  tr.dataset.run = id;
  const checkbox = document.createElement("input");
  checkbox.type = "checkbox";
  checkbox.setAttribute("aria-label", `Show the curves of ${id}`);
  checkbox.addEventListener("change", () => (checkbox.checked ? select(id) : deselect(id)));
  const name = document.createElement("button");
  name.type = "button";
  name.textContent = id;
  name.addEventListener("click", () => {
    select(id);
    checkbox.checked = true;
    showDetails(id);
  });
  const [first, second] = [document.createElement("td"), document.createElement("td")];
  first.append(checkbox);
  second.append(name);
  second.className = "words";
  tr.append(first, second);
  return tr;
}

function select(id) {
  if (selected.has(id)) return;
  selected.set(id, { events: [], source: null, loadedState: "" });
  updateEvents();
}

function deselect(id) {
  selected.get(id)?.source?.close();
  selected.delete(id);
  updateEvents();
}

/** Streams the events of up to `MAX_STREAMS` running runs, and loads those of the other selected runs. */
function updateEvents() {
  let streams = 0;
  for (const [id, run] of selected) {
    const row = runs.find((row) => row.id === id);
    const isStreamed = row?.state === "running" && !document.hidden && streams < MAX_STREAMS;
    streams += isStreamed;
    if (!isStreamed) {
      run.source?.close();
      run.source = null;
      load(id, run, `${row?.state} ${row?.epochs}`);
    } else if (!run.source) {
      stream(id, run);
    }
  }
  redraw();
}

function stream(id, run) {
  const source = new EventSource(`/api/runs/${encodeURIComponent(id)}/events`);
  // After a reconnection or a rewrite of the log, the stream restarts from the first event.
  for (const type of ["open", "again"]) source.addEventListener(type, () => (run.events = []));
  source.addEventListener("entry", (event) => {
    run.events.push(JSON.parse(event.data));
    redraw();
  });
  // If the run is still running, the next update opens a new stream.
  const end = () => {
    source.close();
    if (run.source === source) run.source = null;
  };
  source.addEventListener("gone", end);
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && end());
  run.source = source;
  run.loadedState = "";
}

/** Loads the event log of a run, unless it was loaded in this state. */
async function load(id, run, state) {
  if (run.loadedState === state) return;
  run.loadedState = state;
  try {
    const events = await fetchJson(`/api/runs/${encodeURIComponent(id)}/metrics`);
    if (!run.source) run.events = events;
    redraw();
  } catch {
    // The next update tries again.
    run.loadedState = "";
  }
}

let isRedrawScheduled = false;

function redraw() {
  if (isRedrawScheduled) return;
  isRedrawScheduled = true;
  requestAnimationFrame(() => {
    isRedrawScheduled = false;
    drawCurves();
  });
}

/** Draws the running loss, and the metrics of each epoch, of the selected runs. */
function drawCurves() {
  document.querySelector("#curves").hidden = selected.size === 0;
  const [losses, accuracies, legend] = [[], [], []];
  let index = 0;
  for (const [id, { events }] of selected) {
    const color = COLORS[index++ % COLORS.length];
    const epochs = events.filter((entry) => entry.event === "epoch");
    const batches = events.filter((entry) => entry.event === "batches");
    const points = (value) => epochs.filter((epoch) => value(epoch) != null).map((epoch) => [epoch.steps, value(epoch)]);
    const trainingLoss = batches.length > 0
      ? batches.map(({ steps, loss }) => [steps, loss])
      : points((epoch) => epoch.train?.loss);
    losses.push({ color, isDashed: true, points: trainingLoss });
    losses.push({ color, points: points((epoch) => epoch.validation?.loss) });
    accuracies.push({ color, isDashed: true, points: points((epoch) => epoch.train?.accuracy) });
    accuracies.push({ color, points: points((epoch) => epoch.validation?.accuracy) });
    legend.push(legendItem(id, color, "train", true), legendItem(id, color, "validation", false));
  }
  const hasPoints = ({ points }) => points.length > 0;
  chart(document.querySelector("#loss"), losses.filter(hasPoints));
  chart(document.querySelector("#accuracy"), accuracies.filter(hasPoints));
  document.querySelector("#legend").replaceChildren(...legend);
}

function legendItem(id, color, split, isDashed) {
  const item = document.createElement("li");
  const sample = element("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" });
  const line = { x1: 0, x2: 24, y1: 5, y2: 5, stroke: color, "stroke-width": 3 };
  if (isDashed) line["stroke-dasharray"] = "6 4";
  sample.append(element("line", line));
  item.append(sample, ` ${id}, ${split}`);
  return item;
}

async function showDetails(id) {
  const isOther = shown !== id;
  shown = id;
  let run;
  try {
    run = await fetchJson(`/api/runs/${encodeURIComponent(id)}`);
  } catch (error) {
    showError(error.message);
    return;
  }
  // Another run may have been clicked in the meantime.
  if (shown !== id) return;
  document.querySelector("#detail").hidden = false;
  document.querySelector("#name").textContent = id;
  document.querySelector("#about").textContent = `${run.preset} on ${run.data}. ${run.about}`;
  const report = document.querySelector("#report");
  report.href = `/runs/${encodeURIComponent(id)}/report`;
  report.hidden = !run.evaluation;
  document.querySelector("#layers tbody").replaceChildren(...run.layers.map((layer) => {
    const tr = document.createElement("tr");
    tr.append(
      cell(layer.name, "words"), cell(layer.operation, "words"), cell(`[${layer.output.join(", ")}]`, "words"),
      cell(layer.parameters),
    );
    return tr;
  }));
  showConfusion(run.evaluation);
  document.querySelector("#settings").textContent = run.settings;
  if (isOther) document.querySelector("#name").focus();
}

function hideDetails() {
  shown = null;
  document.querySelector("#detail").hidden = true;
}

function showConfusion(evaluation) {
  const table = document.querySelector("#confusion");
  if (!evaluation) {
    table.replaceChildren(document.createElement("caption"));
    table.firstChild.textContent = "Not evaluated yet.";
    return;
  }
  const names = evaluation.classes.map((metrics) => metrics.class);
  const head = document.createElement("tr");
  head.append(document.createElement("td"), ...names.map((name) => heading(name, "col")));
  const max = Math.max(1, ...evaluation.confusion.flatMap((counts, i) => counts.filter((_, j) => i !== j)));
  const rows = evaluation.confusion.map((counts, i) => {
    const tr = document.createElement("tr");
    tr.append(heading(names[i], "row"));
    tr.append(...counts.map((count, j) => {
      const td = cell(count, i === j ? "hit" : "miss");
      // Frequent errors have a stronger background.
      if (i !== j) td.style.setProperty("--share", `${Math.round((60 * count) / max)}%`);
      return td;
    }));
    return tr;
  });
  table.replaceChildren(head, ...rows);
}

function heading(name, scope) {
  const th = document.createElement("th");
  th.scope = scope;
  th.textContent = name;
  return th;
}

list();
document.addEventListener("visibilitychange", updateEvents);
