// The page at `/`: lists the sources and draws the newest buckets of the chosen one, from the same
// HTTP interface everybody uses. Text from the service is only ever set as text. How the service
// itself is stands in service.js, the error log in errors.js, the drawing in chart.js.
import { draw, element, number } from "./chart.js";
import { showErrors } from "./errors.js";
import { count, showService } from "./service.js";

const REFRESH_MS = 5000;
const PATIENCE_MS = 35e3; // the service gives up after 30 s
const BUCKETS = 120;
const LISTED = 200;
// More sources than are listed are counted up to a page of the service, and only so often.
const COUNTED = 10000;
const COUNT_MS = 60e3;
const PERIOD_MS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, mo: 2678400e3, y: 31622400e3 };

const $ = (id) => document.getElementById(id);
const chosen = { source: null, period: null };
// Said where an answer holds only what could be reached.
const PARTIAL = "Not all could be read: the store or the sink is away.";

// How the service divides time: comes with every list of sources.
let division = { periods: [], timezone: "UTC" };

async function ask(path, parameters) {
  const query = new URLSearchParams(parameters);
  const options = { headers: { accept: "application/json" }, signal: AbortSignal.timeout(PATIENCE_MS) };
  const answer = await fetch(`${path}?${query}`, options).catch(() => {
    throw new Error("the service cannot be reached");
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

const lengthOf = (period) => {
  const [, n, unit] = period.match(/^(\d+)(.+)$/);
  return n * PERIOD_MS[unit];
};

// In the time zone of the service, as short as the period allows.
function when(t, period) {
  const long = lengthOf(period) >= PERIOD_MS.d;
  const short = lengthOf(period) < PERIOD_MS.m;
  const parts = { timeZone: division.timezone, year: "numeric", month: "2-digit", day: "2-digit" };
  if (!long) Object.assign(parts, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  if (short) parts.second = "2-digit";
  return new Intl.DateTimeFormat("sv-SE", parts).format(t);
}

async function askSources(parameters) {
  const page = await ask("v1/sources", parameters);
  division = { periods: page.periods, timezone: page.timezone };
  return page;
}

async function showSources() {
  const prefix = $("prefix").value;
  let listing;
  try {
    listing = await askSources({ prefix, limit: LISTED });
  } catch (error) {
    $("sources-note").textContent = `the list could not be read: ${error.message}`;
    return;
  }
  if ($("prefix").value !== prefix) return;
  const focused = document.activeElement?.source;
  $("sources").replaceChildren(...listing.sources.map(sourceItem));
  if (focused !== undefined) buttons().find((button) => button.source === focused)?.focus();
  const more = listing.next ? `the first ${LISTED}; type the beginning of an id for others` : "";
  const none = listing.partial ? PARTIAL : prefix ? "no source begins like this" : "no source yet: post a reading with the lines below";
  $("sources-note").textContent = listing.sources.length === 0 ? none : more;
  if (chosen.source === null && listing.sources.length > 0) choose(listing.sources[0].source, null);
  if (prefix === "") await showCount(listing);
}

const buttons = () => [...$("sources").querySelectorAll("button")];

function sourceItem({ source, first, last }) {
  const finest = division.periods[0];
  const button = element("button", { type: "button", "aria-pressed": source === chosen.source });
  button.source = source;
  const span = `${when(Date.parse(first), finest)} – ${when(Date.parse(last), finest)}`;
  button.append(element("span", { class: "id" }, source), element("span", { class: "span" }, span));
  button.addEventListener("click", () => choose(source, null));
  const item = element("li");
  item.append(button);
  return item;
}

let countedAt = -Infinity;
async function showCount(listing) {
  if (!listing.next) {
    $("count").textContent = count(listing.sources.length);
  } else if (performance.now() - countedAt > COUNT_MS) {
    countedAt = performance.now();
    try {
      const page = await askSources({ limit: COUNTED });
      $("count").textContent = (page.next ? "over " : "") + count(page.sources.length);
    } catch {
      countedAt = -Infinity;
    }
  }
}

// The source a link names: /#kitchen.
function linked() {
  const written = location.hash.slice(1);
  try {
    return written === "" ? null : decodeURIComponent(written);
  } catch {
    return written;
  }
}

// Without a period: the finest in which the newest buckets hold all there is, once that is known.
function choose(source, period) {
  Object.assign(chosen, { source, period });
  history.replaceState(null, "", `#${encodeURIComponent(source)}`);
  for (const button of buttons()) button.setAttribute("aria-pressed", button.source === source);
  return showChart();
}

// Whatever the list shows: ids are sorted by their bytes, so a known one is the first that begins with itself.
async function spanOf(source) {
  const { sources, partial } = await askSources({ prefix: source, limit: 1 });
  return { span: sources.find((found) => found.source === source), partial };
}

let redraw = () => {};
new ResizeObserver(() => redraw()).observe($("chart"));

async function showChart() {
  const { source, period: wanted } = chosen;
  if (source === null) return;
  watch(source);
  const outdated = () => chosen.source !== source || chosen.period !== wanted;
  let span, period, rows, partial;
  try {
    ({ span, partial } = await spanOf(source));
    if (span) {
      const [first, last] = [Date.parse(span.first), Date.parse(span.last)];
      const fits = (p) => (last - first) / lengthOf(p) < BUCKETS;
      period = wanted ?? division.periods.find(fits) ?? division.periods.at(-1);
      const from = Math.floor(last - BUCKETS * lengthOf(period));
      rows = [];
      let page = {};
      do {
        page = await ask("v1/stats", { source, period, from, ...(page.next && { cursor: page.next }) });
        rows.push(...page.rows);
        partial ||= page.partial;
      } while (page.next);
    }
  } catch (error) {
    if (!outdated()) $("chart-note").textContent = `the chart is not up to date: ${error.message}`;
    return;
  }
  if (outdated()) return;
  $("view").hidden = false;
  $("chart-title").textContent = source;
  if (!span) {
    redraw = () => {};
    shown = null;
    for (const part of ["periods", "chart"]) $(part).replaceChildren();
    $("chart-note").textContent = partial ? PARTIAL : "No source has this id yet.";
    return;
  }
  chosen.period = period;
  $("periods").replaceChildren(...division.periods.map((p) => {
    const button = element("button", { type: "button", "aria-pressed": p === period }, p);
    button.addEventListener("click", () => choose(source, p));
    return button;
  }));
  shown = { source, rows, period, partial };
  showRows();
}

// What is in the chart, so that the newest bucket can move.
let shown = null;

function showRows() {
  move(shown);
  const { rows, period, partial } = shown;
  // Vectors are told, not drawn.
  const numbers = rows.filter((row) => !Array.isArray(row.mean));
  redraw = () => draw($("chart"), numbers, (t) => when(t, period));
  redraw();
  const newest = rows.at(-1);
  $("chart-note").textContent = newest
    ? `${when(Date.parse(newest.start), period)} ${division.timezone}: ${newest.count} ${newest.count === 1 ? "reading" : "readings"}, mean ${number(newest.mean)}, ` +
      `standard deviation ${number(newest.stddev_samp)}, ${number(newest.min)} to ${number(newest.max)}, ${newest.state}. ` +
      (Array.isArray(newest.mean) ? "Vectors are not drawn." : "The line is the mean, the band reaches from minimum to maximum.")
    : "No buckets in this stretch of time.";
  if (partial) $("chart-note").textContent += ` ${PARTIAL}`;
}

// The present buckets of the chosen source, as they change; the browser comes back by itself where the stream ends.
let stream = null;
function watch(source) {
  if (stream?.source === source) return;
  stream?.events.close();
  // A name with * or ? in it would be a pattern.
  const id = /[*?]/.test(source) ? source.replace(/[*?\\]/g, "\\$&") : source;
  const events = new EventSource(`v1/stream?${new URLSearchParams({ channel: `live:${id}` })}`);
  stream = { source, events, rows: [] };
  events.addEventListener("live", ({ data }) => {
    stream.rows = JSON.parse(data).rows;
    if (shown?.source === source) showRows();
  });
  // An answer that is no stream ends it for good: the next refresh begins another one.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED && stream?.events === events) stream = null;
  });
}

// Puts what the stream brought last in the place of what was read, or behind it.
function move({ rows, period }) {
  for (const row of stream?.rows.filter((row) => row.period === period) ?? []) {
    const newest = rows.at(-1);
    if (newest === undefined || newest.start < row.start) rows.push(row);
    else if (newest.start === row.start && newest.count < row.count) rows[rows.length - 1] = row;
    if (rows.length > BUCKETS) rows.shift();
  }
}

// Nobody looks: the service need not either.
function unwatch() {
  stream?.events.close();
  stream = null;
}

function showCommands() {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  $("commands").textContent =
    `curl ${base}/v1/readings -d '{"source": "kitchen", "value": 21.5}'\n` +
    `curl '${base}/v1/stats?source=kitchen'\n` +
    `meanwhile query kitchen --url ${base}`;
}

// While somebody looks; at once when the tab comes back.
let timer;
async function refresh() {
  await Promise.all([showService(), showSources(), showChart(), showErrors()]);
  clearTimeout(timer);
  if (document.hidden) unwatch();
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MS);
}

showCommands();
chosen.source = linked();
$("prefix").addEventListener("input", showSources);
addEventListener("hashchange", () => linked() !== null && choose(linked(), null));
document.addEventListener("visibilitychange", () => (document.hidden ? unwatch() : refresh()));
refresh();
