// The map of the test images: points on a canvas, and the picture of the selected one.

const data = JSON.parse(document.querySelector("#data").textContent);
const canvas = document.querySelector("#map");
const context = canvas.getContext("2d");
const pictures = document.querySelector("#pictures");
const picture = document.querySelector("#picture");
const caption = document.querySelector("#caption");
const onlyMistakes = document.querySelector("#mistakes");
const legend = [...document.querySelectorAll("#legend button")];

const count = data.x.length;
/** The points of each class. */
const members = data.classes.map(() => []);
data.label.forEach((label, point) => members[label].push(point));
/** Whether each class is shown. */
const isShown = data.classes.map(() => true);
/** The part of the map on the canvas: units of the map per side, and the map's coordinates in the middle. */
const view = { scale: 1, x: 0.5, y: 0.5 };
/** Room at the edge of the whole map, as a share of the side. */
const MARGIN = 0.02;
const MAX_SCALE = 400;
/** Distance in CSS pixels from which a point is hit. */
const REACH = 16;
let selected = null;
let isDrawn = true;

const side = () => canvas.clientWidth;
const unit = () => side() * (1 - 2 * MARGIN) * view.scale;
const screenX = (x) => side() / 2 + (x - view.x) * unit();
const screenY = (y) => side() / 2 + (y - view.y) * unit();
const isMistake = (point) => data.label[point] !== data.predicted[point];
const isVisible = (point) => isShown[data.label[point]] && (!onlyMistakes.checked || isMistake(point));
const radius = () => Math.min(Math.max(90 / Math.sqrt(count), 1.5) * view.scale ** 0.35, 7);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Draws before the next frame, however often it is called. */
function redraw() {
  if (isDrawn) {
    isDrawn = false;
    requestAnimationFrame(draw);
  }
}

function draw() {
  isDrawn = true;
  const ratio = devicePixelRatio;
  const pixels = Math.round(side() * ratio);
  if (canvas.width !== pixels) {
    canvas.width = canvas.height = pixels;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, side(), side());
  const [ink, paper] = [color("--ink"), color("--paper")];
  members.forEach((points, label) => drawDots(points.filter(isVisible), data.classes[label].color));
  const mistakes = [...data.x.keys()].filter((point) => isMistake(point) && isVisible(point));
  drawCrosses(mistakes, ink, paper);
  if (data.is_labeled) {
    drawNames(ink, paper);
  }
  if (selected !== null && isVisible(selected)) {
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(screenX(data.x[selected]), screenY(data.y[selected]), radius() + 4, 0, 7);
    context.stroke();
  }
}

function drawDots(points, fill) {
  const r = radius();
  context.fillStyle = fill;
  context.globalAlpha = 0.8;
  context.beginPath();
  for (const point of points) {
    const [x, y] = [screenX(data.x[point]), screenY(data.y[point])];
    if (x > -r && y > -r && x < side() + r && y < side() + r) {
      context.moveTo(x + r, y);
      context.arc(x, y, r, 0, 7);
    }
  }
  context.fill();
  context.globalAlpha = 1;
}

function drawCrosses(points, ink, paper) {
  const r = radius() + 1.5;
  context.beginPath();
  for (const point of points) {
    const [x, y] = [screenX(data.x[point]), screenY(data.y[point])];
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x + r, y - r);
    context.lineTo(x - r, y + r);
  }
  for (const [stroke, width] of [[paper, 3], [ink, 1.3]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.stroke();
  }
}

function drawNames(ink, paper) {
  context.font = "600 15px Ubuntu, Helvetica, Arial, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = paper;
  context.fillStyle = ink;
  data.classes.forEach(({ name, center }, label) => {
    if (center && isShown[label]) {
      const text = name.length > 20 ? `${name.slice(0, 19)}…` : name;
      context.strokeText(text, screenX(center[0]), screenY(center[1]));
      context.fillText(text, screenX(center[0]), screenY(center[1]));
    }
  });
}

/** Returns the visible point with the lowest cost; points that cost `limit` or more do not count. */
function cheapest(cost, limit) {
  let [best, least] = [null, limit];
  for (let point = 0; point < count; point++) {
    const own = isVisible(point) ? cost(point) : Infinity;
    if (own < least) {
      [best, least] = [point, own];
    }
  }
  return best;
}

function pointAt(x, y) {
  return cheapest((point) => Math.hypot(screenX(data.x[point]) - x, screenY(data.y[point]) - y), REACH);
}

function select(point) {
  if (point === null || point === selected) {
    return;
  }
  selected = point;
  showPicture();
  const name = (label) => data.classes[label].name;
  const [label, predicted] = [data.label[point], data.predicted[point]];
  const percent = (100 * data.probability[point]).toFixed(2);
  const lines = [
    ["", data.name[point], ""],
    ["class ", name(label), ""],
    ["predicted ", name(predicted), `, ${percent}%`],
  ];
  caption.replaceChildren(...lines.map(([before, text, after], at) => {
    const line = document.createElement("p");
    const isolated = document.createElement("bdi");
    isolated.textContent = text;
    line.append(before, isolated, after);
    line.className = at === 2 && isMistake(point) ? "mark" : "";
    return line;
  }));
  picture.setAttribute("aria-label", `Picture of class ${name(label)}`);
  redraw();
}

function showPicture() {
  if (selected === null || !pictures.complete) {
    return;
  }
  const { columns, width, height } = data;
  picture.width = width;
  picture.height = height;
  const [left, top] = [(selected % columns) * width, Math.floor(selected / columns) * height];
  picture.getContext("2d").drawImage(pictures, left, top, width, height, 0, 0, width, height);
}

/** Zooms by a factor, such that the place at (x, y) stays there. */
function zoom(factor, x = side() / 2, y = side() / 2) {
  const scale = Math.min(Math.max(view.scale * factor, 0.5), MAX_SCALE);
  const before = unit();
  view.scale = scale;
  const after = unit();
  view.x += (x - side() / 2) * (1 / before - 1 / after);
  view.y += (y - side() / 2) * (1 / before - 1 / after);
  redraw();
}

function move(dx, dy) {
  view.x -= dx / unit();
  view.y -= dy / unit();
  redraw();
}

function showWhole() {
  Object.assign(view, { scale: 1, x: 0.5, y: 0.5 });
  redraw();
}

/** Selects the nearest visible point in a direction, and moves the map to show it. */
function step(dx, dy) {
  const from = selected !== null && isVisible(selected) ? [data.x[selected], data.y[selected]] : [view.x, view.y];
  const cost = (point) => {
    const [x, y] = [data.x[point] - from[0], data.y[point] - from[1]];
    const along = x * dx + y * dy;
    const across = Math.abs(x * dy - y * dx);
    return along > 0 && across <= along ? along + 2 * across : Infinity;
  };
  select(cheapest(cost, Infinity));
  if (selected !== null) {
    const [x, y] = [screenX(data.x[selected]), screenY(data.y[selected])];
    if (Math.min(x, y) < 0 || Math.max(x, y) > side()) {
      move(side() / 2 - x, side() / 2 - y);
    }
  }
}

/** The fingers or buttons that are down, by their identifiers. */
const pointers = new Map();
const position = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left - canvas.clientLeft, y: event.clientY - box.top - canvas.clientTop };
};
const middle = (places) => ({
  x: places.reduce((sum, place) => sum + place.x, 0) / places.length,
  y: places.reduce((sum, place) => sum + place.y, 0) / places.length,
});
const spread = ([a, b]) => (b ? Math.hypot(a.x - b.x, a.y - b.y) : 0);

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, position(event));
  const { x, y } = position(event);
  select(pointAt(x, y));
});
canvas.addEventListener("pointermove", (event) => {
  const now = position(event);
  if (!pointers.has(event.pointerId)) {
    select(pointAt(now.x, now.y));
    return;
  }
  const before = [...pointers.values()];
  pointers.set(event.pointerId, now);
  const after = [...pointers.values()];
  const [from, to] = [middle(before), middle(after)];
  canvas.classList.add("dragged");
  move(to.x - from.x, to.y - from.y);
  if (spread(before) > 0 && spread(after) > 0) {
    zoom(spread(after) / spread(before), to.x, to.y);
  }
});
for (const type of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(type, (event) => {
    pointers.delete(event.pointerId);
    canvas.classList.toggle("dragged", pointers.size > 0);
  });
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { x, y } = position(event);
  // Lines and pages of some mice, in pixels.
  const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
  zoom(Math.exp(-pixels / 400), x, y);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const actions = {
    ArrowLeft: () => step(-1, 0),
    ArrowRight: () => step(1, 0),
    ArrowUp: () => step(0, -1),
    ArrowDown: () => step(0, 1),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: showWhole,
  };
  const action = actions[event.key];
  if (action && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    action();
  }
});

document.querySelector("#closer").addEventListener("click", () => zoom(1.5));
document.querySelector("#farther").addEventListener("click", () => zoom(1 / 1.5));
document.querySelector("#whole").addEventListener("click", showWhole);
onlyMistakes.addEventListener("change", redraw);

function showClass(label, shown) {
  isShown[label] = shown;
  legend[label].setAttribute("aria-pressed", shown);
  redraw();
}

legend.forEach((button, label) => button.addEventListener("click", () => showClass(label, !isShown[label])));
for (const [id, shown] of [["#all", true], ["#none", false]]) {
  document.querySelector(id).addEventListener("click", () => legend.forEach((_, label) => showClass(label, shown)));
}

pictures.addEventListener("load", showPicture);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(redraw).observe(canvas);
redraw();
