// The error log: unexpected errors, those seen last first. Called by page.js every few seconds; nothing is shown
// while there are none. Text from the service is only ever set as text.
import { element } from "./chart.js";

const PATIENCE_MS = 10e3;
const LISTED = 20;

const $ = (id) => document.getElementById(id);
const when = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

function row(error) {
  const cells = [
    when.format(Date.parse(error.last_seen)),
    String(error.count),
    error.view,
    error.class,
    `${error.message} (${error.place})`,
    error.id,
  ];
  const line = element("tr");
  line.append(...cells.map((text) => element("td", {}, text)));
  return line;
}

export async function showErrors() {
  let log;
  try {
    const options = { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" };
    const answer = await fetch(`v1/errors?limit=${LISTED}`, options);
    if (!answer.ok) return;
    log = await answer.json();
  } catch {
    // That the service cannot be reached is said above.
    return;
  }
  $("errors").hidden = log.errors.length === 0;
  $("errors-rows").replaceChildren(...log.errors.map(row));
  const more = log.next ? `The newest ${LISTED}; all of them: meanwhile errors.` : "";
  $("errors-note").textContent = log.partial ? "The store cannot be read: only what this instance still holds." : more;
}
