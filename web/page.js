// The page at `/`: lists the sources and draws the newest buckets of the chosen one, from the same
// HTTP interface everybody uses. Text from the service is only ever set as text.
"use strict";

const REFRESH_MS = 5000;
const BUCKETS = 120;
const LISTED = 200;
const PERIOD_MS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, mo: 2678400e3, y: 31622400e3 };

const $ = (id) => document.getElementById(id);
const chosen = { source: null, period: null };
let listing = { sources: [], periods: [], timezone: "UTC" };

async function ask(path, parameters) {
  const query = new URLSearchParams(parameters);
  const answer = await fetch(`${path}?${query}`, { headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

function element(name, attributes, text) {
  const svg = ["svg", "path", "line", "text", "circle", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const lengthOf = (period) => {
  const [, n, unit] = period.match(/^(\d+)(.+)$/);
  return n * PERIOD_MS[unit];
};

// In the time zone of the service, as short as the period allows.
function when(t, period) {
  const long = lengthOf(period) >= PERIOD_MS.d;
  const short = lengthOf(period) < PERIOD_MS.m;
  const parts = { timeZone: listing.timezone, year: "numeric", month: "2-digit", day: "2-digit" };
  if (!long) Object.assign(parts, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  if (short) parts.second = "2-digit";
  return new Intl.DateTimeFormat("sv-SE", parts).format(t);
}

const number = (x) => (x === null ? "–" : Number(x.toPrecision(6)).toString());

async function showSources() {
  try {
    listing = await ask("v1/sources", { prefix: $("prefix").value, limit: LISTED });
  } catch (error) {
    $("sources-note").textContent = error.message;
    return;
  }
  const finest = listing.periods[0];
  $("sources").replaceChildren(...listing.sources.map(({ source, first, last }) => {
    const button = element("button", { type: "button", "aria-pressed": source === chosen.source });
    const span = `${when(Date.parse(first), finest)} – ${when(Date.parse(last), finest)}`;
    button.append(element("span", { class: "id" }, source), element("span", { class: "span" }, span));
    button.addEventListener("click", () => choose(source, null));
    const item = element("li");
    item.append(button);
    return item;
  }));
  const more = listing.next ? `the first ${LISTED}; type the beginning of an id for others` : "";
  const none = $("prefix").value ? "no source begins like this" : "no source yet: post a reading with the lines below";
  $("sources-note").textContent = listing.sources.length === 0 ? none : more;
  if (!chosen.source && listing.sources.length > 0) choose(linked() ?? listing.sources[0].source, null);
}

// The source a link names: /#kitchen.
const linked = () => (location.hash.length > 1 ? decodeURIComponent(location.hash.slice(1)) : null);

// Without a period: the finest in which the newest buckets hold all there is.
function choose(source, period) {
  const found = listing.sources.find((s) => s.source === source);
  const held = found ? Date.parse(found.last) - Date.parse(found.first) : 0;
  chosen.source = source;
  history.replaceState(null, "", `#${encodeURIComponent(source)}`);
  chosen.period = period ?? listing.periods.find((p) => held / lengthOf(p) < BUCKETS) ?? listing.periods.at(-1);
  for (const button of $("sources").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.firstChild.textContent === source);
  }
  showChart();
}

async function showChart() {
  const { source, period } = chosen;
  const found = listing.sources.find((s) => s.source === source);
  if (!source || !found) return;
  const from = Date.parse(found.last) - BUCKETS * lengthOf(period);
  let rows;
  try {
    rows = (await ask("v1/stats", { source, period, from: Math.floor(from) })).rows;
  } catch (error) {
    $("chart-note").textContent = error.message;
    return;
  }
  if (chosen.source !== source || chosen.period !== period) return;
  $("view").hidden = false;
  $("chart-title").textContent = source;
  $("periods").replaceChildren(...listing.periods.map((p) => {
    const button = element("button", { type: "button", "aria-pressed": p === period }, p);
    button.addEventListener("click", () => choose(source, p));
    return button;
  }));
  draw(rows, period);
  const newest = rows.at(-1);
  $("chart-note").textContent = newest
    ? `${when(Date.parse(newest.start), period)} ${listing.timezone}: ${newest.count} ${newest.count === 1 ? "reading" : "readings"}, mean ${number(newest.mean)}, ` +
      `standard deviation ${number(newest.stddev_samp)}, ${number(newest.min)} to ${number(newest.max)}, ${newest.state}. ` +
      "The line is the mean, the band reaches from minimum to maximum."
    : "no buckets in this stretch of time";
}

function draw(rows, period) {
  const box = { left: 56, right: 708, top: 12, bottom: 228 };
  const chart = $("chart");
  chart.replaceChildren();
  if (rows.length === 0) return;
  const points = rows.map((r) => ({ ...r, t: (Date.parse(r.start) + Date.parse(r.end)) / 2 }));
  const [first, last] = [points[0].t, points.at(-1).t];
  let [low, high] = [Math.min(...rows.map((r) => r.min)), Math.max(...rows.map((r) => r.max))];
  if (low === high) [low, high] = [low - 1, high + 1];
  const x = (t) => (first === last ? (box.left + box.right) / 2 : box.left + ((t - first) / (last - first)) * (box.right - box.left));
  const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
  const at = (t, v) => `${x(t).toFixed(1)},${y(v).toFixed(1)}`;

  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    chart.append(element("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    chart.append(element("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  const labels = first === last ? [first] : [first, (first + last) / 2, last];
  labels.forEach((t, i) => {
    const anchor = first === last || i === 1 ? "middle" : i === 0 ? "start" : "end";
    chart.append(element("text", { x: x(t), y: box.bottom + 20, "text-anchor": anchor }, when(t, period)));
  });
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

function showCommands() {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  $("commands").textContent =
    `curl ${base}/v1/readings -d '{"source": "kitchen", "value": 21.5}'\n` +
    `curl '${base}/v1/stats?source=kitchen'\n` +
    `meanwhile query kitchen --url ${base}`;
}

showCommands();
showSources();
$("prefix").addEventListener("input", showSources);
setInterval(() => { showSources(); showChart(); }, REFRESH_MS);
