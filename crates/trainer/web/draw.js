// The page to draw on. Sends the drawing to the server at each change, and shows the prediction.

const drawingCanvas = document.querySelector("#paper");
const brush = document.querySelector("#size");
const context = drawingCanvas.getContext("2d");

/** The drawing: strokes `{ size, points }` and pictures `{ picture }`, in drawing order. */
let marks = [];
/** The stroke that the pointer is drawing, or null. */
let current = null;
/** The position of the keyboard pen, and the stroke that it is drawing, or null. */
const keyboard = { x: drawingCanvas.width / 2, y: drawingCanvas.height / 2, stroke: null, isShown: false };
/** The characters of the drawing, if it was read as several. */
let characters = [];
let classes = [];
let shape = [1, 28, 28];

function draw() {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, drawingCanvas.width, drawingCanvas.height);
  for (const mark of marks) {
    if (mark.picture) {
      const { width, height } = mark.picture;
      const scale = Math.min(drawingCanvas.width / width, drawingCanvas.height / height);
      const [w, h] = [width * scale, height * scale];
      context.drawImage(mark.picture, (drawingCanvas.width - w) / 2, (drawingCanvas.height - h) / 2, w, h);
    } else {
      drawStroke(mark);
    }
  }
}

function drawStroke({ size, points }) {
  context.strokeStyle = context.fillStyle = "#111";
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  // Quadratic curves through the midpoints of the pointer positions, which have no corners.
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    const [nextX, nextY] = points[i + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...points[points.length - 1]);
  context.stroke();
}

/** Draws the drawing, and over it the frames of its characters and the keyboard pen, which are not part of it. */
function drawWithPen() {
  draw();
  context.strokeStyle = "#d55e00";
  context.lineWidth = 2;
  for (const { box: [x, y, width, height] } of characters) context.strokeRect(x - 4, y - 4, width + 8, height + 8);
  if (keyboard.isShown) {
    context.strokeStyle = "#0072b2";
    context.lineWidth = 3;
    context.beginPath();
    context.arc(keyboard.x, keyboard.y, brush.value / 2 + 3, 0, 7);
    context.stroke();
  }
}

function position(event) {
  const box = drawingCanvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * drawingCanvas.width) / box.width,
    ((event.clientY - box.top) * drawingCanvas.height) / box.height,
  ];
}

drawingCanvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  drawingCanvas.setPointerCapture(event.pointerId);
  current = { pointer: event.pointerId, size: Number(brush.value), points: [position(event)] };
  marks.push(current);
  keyboard.stroke = null;
  keyboard.isShown = false;
  changed();
});
drawingCanvas.addEventListener("pointermove", (event) => {
  if (current?.pointer !== event.pointerId) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length > 0 ? events : [event]) current.points.push(position(each));
  changed();
});
for (const end of ["pointerup", "pointercancel"]) {
  drawingCanvas.addEventListener(end, (event) => {
    if (current?.pointer === event.pointerId) current = null;
  });
}

/** Replaces the drawing, and ends the current stroke. */
function replaceMarks(newMarks) {
  marks = newMarks;
  current = keyboard.stroke = null;
  changed();
}

function undo() {
  replaceMarks(marks.slice(0, -1));
}

function clear() {
  replaceMarks([]);
}

function resizeBrush(change) {
  brush.value = Number(brush.value) + change;
}

document.querySelector("#undo").addEventListener("click", undo);
document.querySelector("#clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "[") resizeBrush(-5);
  else if (event.key === "]") resizeBrush(5);
  else return;
  event.preventDefault();
});

/** The direction of each arrow key. */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
drawingCanvas.addEventListener("keydown", (event) => {
  const direction = ARROWS[event.key];
  if (direction) {
    const distance = event.shiftKey ? 5 : 20;
    keyboard.x = Math.min(drawingCanvas.width, Math.max(0, keyboard.x + distance * direction[0]));
    keyboard.y = Math.min(drawingCanvas.height, Math.max(0, keyboard.y + distance * direction[1]));
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
drawingCanvas.addEventListener("blur", () => {
  keyboard.stroke = null;
  keyboard.isShown = false;
  drawWithPen();
});

async function showPicture(file) {
  if (!file?.type.startsWith("image/")) return;
  try {
    replaceMarks([{ picture: await createImageBitmap(file) }]);
  } catch {
    showError("This picture cannot be read.");
  }
}

document.querySelector("#file").addEventListener("change", (event) => {
  showPicture(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => showPicture(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drawingCanvas.classList.add("over");
});
document.addEventListener("dragleave", () => drawingCanvas.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drawingCanvas.classList.remove("over");
  showPicture(event.dataTransfer.files[0]);
});

// One request is sent at a time. Meanwhile only the newest change waits; earlier ones are skipped.
let isSending = false;
/** Returns the body of the next request, or null. */
let nextBody = null;
/** Number of times that the drawing was cleared. Responses to earlier requests are discarded. */
let clearCount = 0;

function changed() {
  if (marks.length === 0) {
    nextBody = null;
    clearCount += 1;
    clearPrediction();
    drawWithPen();
    return;
  }
  drawWithPen();
  nextBody = async () => {
    draw();
    const picture = await new Promise((done) => drawingCanvas.toBlob(done, "image/png"));
    drawWithPen();
    return picture;
  };
  predict();
}

async function predict() {
  // Marks the page while a prediction is pending, for programs that drive it.
  document.body.dataset.asking = "";
  if (isSending) return;
  isSending = true;
  while (nextBody) {
    const body = nextBody;
    const countBefore = clearCount;
    nextBody = null;
    const { json, error } = await fetchJson("/api/inspect", { method: "POST", body: await body() });
    if (countBefore !== clearCount) continue;
    if (error) clearPrediction();
    else showPrediction(json);
    showError(error ?? "");
  }
  isSending = false;
  delete document.body.dataset.asking;
}

/** Returns the JSON of a response, or an error message. */
async function fetchJson(address, request) {
  try {
    const response = await fetch(address, request);
    const json = await response.json();
    return response.ok ? { json } : { error: json.detail };
  } catch {
    return { error: "The server does not respond." };
  }
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

function showError(message) {
  document.querySelector("#problem").textContent = message;
}

function clearPrediction() {
  showError("");
  characters = [];
  document.querySelector("#bars").hidden = false;
  document.querySelector("#answer").textContent = "–";
  document.querySelector("#verdict").textContent = "";
  for (const name of classes) setBar(name, 0);
  document.querySelector("#blocks").replaceChildren();
  const seen = document.querySelector("#seen");
  seen.getContext("2d").clearRect(0, 0, seen.width, seen.height);
}

function showPrediction({ prediction, seen, blocks }) {
  characters = prediction.characters ?? [];
  drawWithPen();
  document.querySelector("#answer").textContent = `${prediction.class}, ${percent(prediction.probability)}`;
  document.querySelector("#verdict").textContent = verdict(prediction);
  // The bars are those of one character.
  document.querySelector("#bars").hidden = characters.length > 0;
  for (const { class: name, probability } of prediction.top) setBar(name, probability);
  const maps = document.querySelector("#blocks");
  maps.replaceChildren(...blocks.map((block, i) => drawBlock(block, i)));
  paint(document.querySelector("#seen"), decodeBase64(seen.pixels), seen.channels, seen.height, seen.width);
}

/** Returns in words whether the prediction can be trusted. */
function verdict({ verdict, top, characters }) {
  if (characters) {
    const doubtful = characters.filter((character) => character.verdict !== "sure").length;
    return doubtful === 0 ? "Sure" : `Not sure of ${doubtful} of ${characters.length} characters`;
  }
  const names = top.slice(0, 2).map((candidate) => candidate.class);
  const words = {
    sure: "Sure",
    unsure: `Unsure: ${names.join(" or ")}`,
    unlike: `Unlike the training images of ${names[0]}`,
  };
  return words[verdict] ?? "";
}

function setBar(name, probability) {
  const row = document.querySelector(`#bars li[data-class="${CSS.escape(name)}"]`);
  if (!row) return;
  row.querySelector("progress").value = probability;
  row.querySelector(".number").textContent = percent(probability);
}

function drawBlock({ channels, height, width, pixels }, number) {
  const bytes = decodeBase64(pixels);
  const section = document.createElement("div");
  const title = document.createElement("h3");
  title.textContent = `Block ${number + 1}: ${channels} feature maps of ${height}x${width}`;
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

function decodeBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Paints one plane of bytes (gray) or three (RGB) on a canvas. */
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
  const bytes = decodeBase64(sample.pixels);
  paint(canvas, bytes, channels, height, width);
  const caption = document.createElement("span");
  const isCorrect = sample.class === sample.predicted;
  caption.textContent = isCorrect ? sample.class : `${sample.class}, not ${sample.predicted}`;
  button.append(canvas, caption);
  button.title = `Test image ${sample.index}`;
  button.addEventListener("click", () => {
    clear();
    nextBody = async () => JSON.stringify([...bytes]);
    predict();
  });
  return button;
}

async function showThumbnails(selector, address) {
  const { json, error } = await fetchJson(address);
  const section = document.querySelector(selector);
  if (error) section.textContent = error;
  else section.replaceChildren(...json.map(thumbnail));
}

let seed = 0;
document.querySelector("#more").addEventListener("click", () => {
  seed += 1;
  showThumbnails("#samples", `/api/samples?count=12&seed=${seed}`);
});

async function start() {
  const { json: model, error } = await fetchJson("/api/model");
  if (error) {
    showError(error);
    return;
  }
  ({ classes, shape } = model);
  const accuracy = model.accuracy === null ? "" : `, test accuracy ${(100 * model.accuracy).toFixed(2)}%`;
  document.querySelector("#model").textContent =
    `${model.run}: ${model.preset} on ${model.data}${accuracy}; ${model.device}`;
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
  clearPrediction();
  drawWithPen();
  showThumbnails("#samples", "/api/samples?count=12&seed=0");
  showThumbnails("#mistakes", "/api/mistakes?count=12");
}

start();
