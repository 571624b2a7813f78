// The live state of the service, from the two addresses that every monitoring asks: `readyz` and
// `metrics`. Called by page.js every few seconds; `away` says that the service cannot be reached.

const PATIENCE_MS = 10e3;

const $ = (id) => document.getElementById(id);
// The newest look at each instance: behind a balancer the next answer may be another one's.
const looks = new Map();
let lost = null;

// Sets a text only where it differs, so that a screen reader says what is new and nothing else.
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

const few = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (x) => whole.format(x);
const rate = (x) => (x < 10 ? few : whole).format(x);

function duration(seconds) {
  if (seconds < 100) return `${whole.format(seconds)} s`;
  if (seconds < 6000) return `${whole.format(seconds / 60)} min`;
  return `${whole.format(seconds / 3600)} h`;
}

// The value of a series of Prometheus' text format, by its name with its labels.
function series(text, name) {
  const line = text.split("\n").find((line) => line.startsWith(`${name} `));
  return line ? Number(line.slice(name.length + 1)) : null;
}

// What is accepted between two looks at one instance, by the time between them; null at the first.
function pace(instance, accepted) {
  const now = performance.now();
  const before = looks.get(instance);
  looks.set(instance, { accepted, now });
  if (!before || accepted < before.accepted || now <= before.now) return null;
  return (accepted - before.accepted) / ((now - before.now) / 1000);
}

export async function showService() {
  let standing, metrics, instance;
  try {
    const options = { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" };
    const [ready, counted] = await Promise.all([fetch("readyz", options), fetch("metrics", options)]);
    // Not ready is 503 with the same body; a problem document in its place is somebody's who is not the service.
    [standing, metrics] = [await ready.json(), await counted.text()];
    if (!standing.store || !counted.ok) throw new Error(standing.detail ?? counted.statusText);
    instance = counted.headers.get("x-instance");
  } catch {
    away();
    return;
  }
  lost = null;
  $("service").dataset.state = standing.ready ? "ready" : "trouble";
  say("service-state", standing.ready ? "ready" : "not ready");
  const troubles = [];
  if (!standing.store.reachable) troubles.push(`The store does not answer, no readings are taken: ${standing.store.trouble}`);
  if (standing.sink && !standing.sink.usable) troubles.push(`The sink takes no rows, finished buckets wait in the store: ${standing.sink.trouble}`);
  say("trouble", troubles.join("\n"));

  const version = metrics.match(/^meanwhile_build_info\{version="([^"]*)"/m)?.[1] ?? "unknown";
  say("service-note", `Instance ${standing.instance}, version ${version}, durability ${standing.store.durability}.`);
  const now = pace(instance, series(metrics, 'meanwhile_readings_total{outcome="accepted"}'));
  say("rate", now === null ? "…" : rate(now));
  // Null where another instance writes the rows.
  const { rollover } = standing;
  say("open", rollover ? count(rollover.open_buckets) : "–");
  say("waiting", rollover ? count(rollover.waiting_buckets) : "–");
  say("due", rollover ? duration(rollover.oldest_due_seconds) : "–");
}

// The figures stay: they are what was known last.
function away() {
  lost ??= new Date();
  $("service").dataset.state = "away";
  say("service-state", "cannot be reached");
  say("trouble", `No answer since ${lost.toLocaleTimeString("sv-SE")}; what is shown is from before. Trying again every few seconds.`);
  say("rate", "–");
}
