// Draws rows: the mean as a line, minimum to maximum as a band. Called by page.js; knows nothing of
// the service, and sets text only as text.

const HEIGHT = 260;
// Three times side by side need so much room.
const WIDE = 480;
// Of a digit of the labels.
const DIGIT = 6.6;

export function element(name, attributes, text) {
  const svg = ["svg", "path", "line", "text", "circle", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Of a vector, the numbers of its components.
export const number = (x) =>
  x === null ? "–" : Array.isArray(x) ? `[${x.map(number).join(", ")}]` : Number(x.toPrecision(6)).toString();

// Three to eight round values between two, 1, 2 or 5 times a power of ten apart, each as it is written.
function ticks(low, high) {
  const rough = (high - low) / 7;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((n) => n * power >= rough) * power;
  const values = Array.from({ length: 8 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((v) => v <= high);
  const plain = Math.max(-low, high) < 1e12 && step > 1e-9;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return values.map((value) => ({ value, label: plain ? value.toFixed(digits) : number(value) }));
}

// `when` writes a time. The width is that of the page, so that letters keep their size.
export function draw(chart, rows, when) {
  // Before it is emptied: an empty chart takes no room.
  const width = Math.max(chart.clientWidth, 240);
  chart.replaceChildren();
  if (rows.length === 0) return;
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const points = rows.map((r) => ({ ...r, t: (Date.parse(r.start) + Date.parse(r.end)) / 2 }));
  const [first, last] = [points[0].t, points.at(-1).t];
  let [low, high] = [Math.min(...rows.map((r) => r.min)), Math.max(...rows.map((r) => r.max))];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 10, high + (Math.abs(high) || 1) / 10];
  const marks = ticks(low, high);
  const left = 12 + DIGIT * Math.max(...marks.map(({ label }) => label.length));
  const box = { left, right: width - 8, top: 12, bottom: HEIGHT - 32 };
  const x = (t) => (first === last ? (box.left + box.right) / 2 : box.left + ((t - first) / (last - first)) * (box.right - box.left));
  const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
  const at = (t, v) => `${x(t).toFixed(1)},${y(v).toFixed(1)}`;

  for (const { value, label } of marks) {
    chart.append(element("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    chart.append(element("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, label));
  }
  const times = width < WIDE ? [[first, "start"], [last, "end"]] : [[first, "start"], [(first + last) / 2, "middle"], [last, "end"]];
  for (const [t, anchor] of first === last ? [[first, "middle"]] : times) {
    chart.append(element("text", { x: x(t), y: box.bottom + 20, "text-anchor": anchor }, when(t)));
  }
  // Empty buckets have no row: where one is missing the line is interrupted.
  let run = [];
  const finish = () => {
    if (run.length > 1) {
      const there = run.map((p) => at(p.t, p.max));
      const back = run.map((p) => at(p.t, p.min)).reverse();
      chart.append(element("path", { class: "band", d: `M${[...there, ...back].join("L")}Z` }));
      chart.append(element("path", { class: "mean", d: `M${run.map((p) => at(p.t, p.mean)).join("L")}` }));
    } else if (run.length === 1) {
      chart.append(element("circle", { class: "dot", cx: x(run[0].t), cy: y(run[0].mean), r: 2.5 }));
    }
    run = [];
  };
  for (const point of points) {
    if (run.length > 0 && point.start !== run.at(-1).end) finish();
    run.push(point);
  }
  finish();
}
