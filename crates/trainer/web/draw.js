// The page to draw on: strokes on paper, and what the network makes of them as they grow.

const paper = document.querySelector("#paper");
const brush = document.querySelector("#size");
const pen = paper.getContext("2d");

/** What is on the paper: strokes `{ size, points }` and pictures `{ picture }`, in order. */
let marks = [];
/** The stroke that the pointer draws. */
let current = null;
/** Where the keyboard's pen is, and the stroke it draws while it is down. */
const keyboard = { x: paper.width / 2, y: paper.height / 2, stroke: null, isShown: false };
let classes = [];
let shape = [1, 28, 28];

function draw() {
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, paper.width, paper.height);
  for (const mark of marks) {
    if (mark.picture) {
      const { width, height } = mark.picture;
      const scale = Math.min(paper.width / width, paper.height / height);
      const [w, h] = [width * scale, height * scale];
      pen.drawImage(mark.picture, (paper.width - w) / 2, (paper.height - h) / 2, w, h);
    } else {
      stroke(mark);
    }
  }
}

function stroke({ size, points }) {
  pen.strokeStyle = pen.fillStyle = "#111";
  pen.lineWidth = size;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...points[0]);
  // Curves through the middles of what the pointer told: no corners.
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    const [nextX, nextY] = points[i + 1];
    pen.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  pen.lineTo(...points[points.length - 1]);
  pen.stroke();
}

/** The keyboard's pen is shown over the paper, but is none of what is sent. */
function show() {
  draw();
  if (keyboard.isShown) {
    pen.strokeStyle = "#0072b2";
    pen.lineWidth = 3;
    pen.beginPath();
    pen.arc(keyboard.x, keyboard.y, brush.value / 2 + 3, 0, 7);
    pen.stroke();
  }
}

function position(event) {
  const box = paper.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * paper.width) / box.width,
    ((event.clientY - box.top) * paper.height) / box.height,
  ];
}

paper.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  paper.setPointerCapture(event.pointerId);
  current = { pointer: event.pointerId, size: Number(brush.value), points: [position(event)] };
  marks.push(current);
  keyboard.stroke = null;
  keyboard.isShown = false;
  changed();
});
paper.addEventListener("pointermove", (event) => {
  if (current?.pointer !== event.pointerId) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length > 0 ? events : [event]) current.points.push(position(each));
  changed();
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, (event) => {
    if (current?.pointer === event.pointerId) current = null;
  });
}

/** Replaces what is on the paper; a stroke that is being drawn ends. */
function put(other) {
  marks = other;
  current = keyboard.stroke = null;
  changed();
}

function undo() {
  put(marks.slice(0, -1));
}

function clear() {
  put([]);
}

function resize(by) {
  brush.value = Number(brush.value) + by;
}

document.querySelector("#undo").addEventListener("click", undo);
document.querySelector("#clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "[") resize(-5);
  else if (event.key === "]") resize(5);
  else return;
  event.preventDefault();
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
paper.addEventListener("keydown", (event) => {
  const step = ARROWS[event.key];
  if (step) {
    const by = event.shiftKey ? 5 : 20;
    keyboard.x = Math.min(paper.width, Math.max(0, keyboard.x + by * step[0]));
    keyboard.y = Math.min(paper.height, Math.max(0, keyboard.y + by * step[1]));
    keyboard.stroke?.points.push([keyboard.x, keyboard.y]);
  } else if (event.key === " ") {
    keyboard.stroke = keyboard.stroke ? null : { size: Number(brush.value), points: [[keyboard.x, keyboard.y]] };
    if (keyboard.stroke) marks.push(keyboard.stroke);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    clear();
  } else {
    return;
  }
  keyboard.isShown = true;
  event.preventDefault();
  changed();
});
paper.addEventListener("blur", () => {
  keyboard.stroke = null;
  keyboard.isShown = false;
  show();
});

async function take(file) {
  if (!file?.type.startsWith("image/")) return;
  try {
    put([{ picture: await createImageBitmap(file) }]);
  } catch {
    tell("This picture cannot be read.");
  }
}

document.querySelector("#file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  paper.classList.add("over");
});
document.addEventListener("dragleave", () => paper.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  paper.classList.remove("over");
  take(event.dataTransfer.files[0]);
});

// One question at a time; the newest waits, those before it are left out.
let isAsking = false;
let next = null;
/** How often the paper became blank: what was asked before is of no interest then. */
let blanks = 0;

function changed() {
  show();
  if (marks.length === 0) {
    next = null;
    blanks += 1;
    blank();
    return;
  }
  next = async () => {
    draw();
    const picture = await new Promise((done) => paper.toBlob(done, "image/png"));
    show();
    return picture;
  };
  ask();
}

async function ask() {
  // What drives the page can tell whether an answer is still to come.
  document.body.dataset.asking = "";
  if (isAsking) return;
  isAsking = true;
  while (next) {
    const question = next;
    const before = blanks;
    next = null;
    const { found, problem } = await asked("/api/inspect", { method: "POST", body: await question() });
    if (before !== blanks) continue;
    if (problem) blank();
    else tellAll(found);
    tell(problem ?? "");
  }
  isAsking = false;
  delete document.body.dataset.asking;
}

/** What the server answers: what it found, or its problem. */
async function asked(address, request) {
  try {
    const answer = await fetch(address, request);
    const found = await answer.json();
    return answer.ok ? { found } : { problem: found.detail };
  } catch {
    return { problem: "The server does not answer." };
  }
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

function tell(problem) {
  document.querySelector("#problem").textContent = problem;
}

function blank() {
  tell("");
  document.querySelector("#answer").textContent = "–";
  for (const name of classes) bar(name, 0);
  document.querySelector("#blocks").replaceChildren();
  const seen = document.querySelector("#seen");
  seen.getContext("2d").clearRect(0, 0, seen.width, seen.height);
}

function tellAll({ prediction, seen, blocks }) {
  document.querySelector("#answer").textContent = `${prediction.class}, ${percent(prediction.probability)}`;
  for (const { class: name, probability } of prediction.top) bar(name, probability);
  const maps = document.querySelector("#blocks");
  maps.replaceChildren(...blocks.map((block, i) => drawBlock(block, i)));
  paint(document.querySelector("#seen"), decoded(seen.pixels), seen.channels, seen.height, seen.width);
}

function bar(name, probability) {
  const row = document.querySelector(`#bars li[data-class="${CSS.escape(name)}"]`);
  if (!row) return;
  row.querySelector("progress").value = probability;
  row.querySelector(".number").textContent = percent(probability);
}

function drawBlock({ channels, height, width, pixels }, number) {
  const bytes = decoded(pixels);
  const section = document.createElement("div");
  const title = document.createElement("h3");
  title.textContent = `Block ${number + 1}: ${channels} maps of ${height}x${width}`;
  const maps = document.createElement("div");
  maps.className = "maps";
  for (let i = 0; i < channels; i++) {
    const map = document.createElement("canvas");
    map.className = "pixels";
    map.setAttribute("aria-hidden", "true");
    paint(map, bytes.subarray(i * height * width, (i + 1) * height * width), 1, height, width);
    maps.append(map);
  }
  section.append(title, maps);
  return section;
}

function decoded(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Puts planes of bytes, one or three, on a canvas. */
function paint(canvas, bytes, channels, height, width) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const plane = height * width;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[(channels === 3 ? c * plane : 0) + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function thumbnail(sample) {
  const [channels, height, width] = shape;
  const button = document.createElement("button");
  button.type = "button";
  const canvas = document.createElement("canvas");
  canvas.className = "pixels";
  canvas.setAttribute("aria-hidden", "true");
  const bytes = decoded(sample.pixels);
  paint(canvas, bytes, channels, height, width);
  const caption = document.createElement("span");
  const isRight = sample.class === sample.predicted;
  caption.textContent = isRight ? sample.class : `${sample.class}, not ${sample.predicted}`;
  button.append(canvas, caption);
  button.title = `Test image ${sample.index}`;
  button.addEventListener("click", () => {
    clear();
    next = async () => JSON.stringify([...bytes]);
    ask();
  });
  return button;
}

async function thumbnails(place, address) {
  const { found, problem } = await asked(address);
  const section = document.querySelector(place);
  if (problem) section.textContent = problem;
  else section.replaceChildren(...found.map(thumbnail));
}

let seed = 0;
document.querySelector("#more").addEventListener("click", () => {
  seed += 1;
  thumbnails("#samples", `/api/samples?count=12&seed=${seed}`);
});

async function begin() {
  const { found: model, problem } = await asked("/api/model");
  if (problem) {
    tell(problem);
    return;
  }
  ({ classes, shape } = model);
  const judged = model.accuracy === null ? "" : `, ${(100 * model.accuracy).toFixed(2)}% of the test split`;
  document.querySelector("#model").textContent =
    `${model.run}: ${model.preset} on ${model.data}${judged}; ${model.device}`;
  const rows = classes.map((name) => {
    const row = document.createElement("li");
    row.dataset.class = name;
    const label = document.createElement("span");
    label.textContent = name;
    const progress = document.createElement("progress");
    progress.max = 1;
    progress.value = 0;
    progress.setAttribute("aria-label", name);
    const number = document.createElement("span");
    number.className = "number";
    row.append(label, progress, number);
    return row;
  });
  document.querySelector("#bars").replaceChildren(...rows);
  blank();
  show();
  thumbnails("#samples", "/api/samples?count=12&seed=0");
  thumbnails("#mistakes", "/api/mistakes?count=12");
}

begin();
