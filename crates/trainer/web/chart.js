// Line charts over optimizer steps, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480;
const HEIGHT = 280;
const MARGIN = { left: 48, right: 12, top: 10, bottom: 30 };

/** The palette of Okabe and Ito, which color-blind people can distinguish. */
export const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

export function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Returns about five round numbers from `min` to `max`. */
function ticks(min, max) {
  const rough = (max - min) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const values = [];
  for (let tick = Math.ceil(min / step) * step; tick <= max + step / 1e6; tick += step) values.push(tick);
  return values;
}

function label(value) {
  return Math.abs(value) >= 1e4 ? `${Number((value / 1000).toPrecision(3))}k` : String(Number(value.toPrecision(3)));
}

/** Draws series `{ color, isDashed, points: [[x, y], ...] }` in `svg`. */
export function chart(svg, series) {
  const all = series.flatMap(({ points }) => points);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  if (all.length === 0) {
    svg.replaceChildren(element("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no data yet"));
    return;
  }
  const [xs, ys] = [0, 1].map((axis) => all.map((point) => point[axis]));
  const [left, right] = [0, Math.max(...xs, 1)];
  const spread = Math.max(...ys) - Math.min(...ys) || 0.01;
  const [bottom, top] = [Math.min(...ys) - 0.05 * spread, Math.max(...ys) + 0.05 * spread];
  const x = (value) => MARGIN.left + ((value - left) / (right - left)) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - ((value - bottom) / (top - bottom)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const nodes = [];
  for (const tick of ticks(bottom, top)) {
    nodes.push(element("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(tick), y2: y(tick) }));
    nodes.push(element("text", { x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end" }, label(tick)));
  }
  for (const tick of ticks(left, right)) {
    nodes.push(element("text", { x: x(tick), y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "middle" }, label(tick)));
  }
  nodes.push(element("text", { x: WIDTH - MARGIN.right, y: HEIGHT - 2, "text-anchor": "end" }, "steps"));
  for (const { color, isDashed, points } of series) {
    const path = points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
    const line = { points: path, fill: "none", stroke: color, "stroke-width": 2 };
    if (isDashed) line["stroke-dasharray"] = "6 4";
    nodes.push(element("polyline", line));
    const [lastX, lastY] = points[points.length - 1];
    nodes.push(element("circle", { cx: x(lastX), cy: y(lastY), r: 3, fill: color }));
  }
  svg.replaceChildren(...nodes);
}
