// Follows a round: polls its events after a cursor and, when there is something new, swaps in the
// live part of the page as the server draws it. Without this module a link does the same.
const box = document.getElementById("live");
const note = document.getElementById("live-note");
let { events: eventsUrl, fragment: fragmentUrl, cursor, signature } = box.dataset;
const POLL_MS = 2_000;
const HIDDEN_MS = 15_000;
const LOOK = new Set(["metrics", "progress", "sample", "phase", "warning", "alarm", "start", "end", "resumed"]);

async function look() {
  let again = document.hidden ? HIDDEN_MS : POLL_MS;
  try {
    const reply = await fetch(`${eventsUrl}?after=${encodeURIComponent(cursor)}`);
    if (reply.redirected || reply.status === 403) { location.reload(); return; }
    if (!reply.ok) throw new Error(reply.status);
    const now = await reply.json();
    const changed = now.signature !== signature;
    if (changed && /^(awaiting_verdict|promoted|rejected|failed|cancelled):/.test(now.signature)) {
      location.reload(); // the page has other parts now: a verdict, answers, a way to try again
      return;
    }
    if (changed || now.events.some((event) => LOOK.has(event.kind))) await swap();
    ({ cursor, signature } = now);
    note.textContent = "";
    if (now.more) again = 0;
  } catch {
    note.textContent = "The server does not answer. What you see is the last we know; trying again.";
  }
  setTimeout(look, again);
}

async function swap() {
  const reply = await fetch(fragmentUrl);
  if (!reply.ok) throw new Error(reply.status);
  const open = new Set([...box.querySelectorAll("details[open][id]")].map((item) => item.id));
  const focused = box.contains(document.activeElement) ? document.activeElement.closest("[id]")?.id : null;
  box.innerHTML = await reply.text(); // our own template: model text in it is already sanitised
  for (const item of box.querySelectorAll("details[id]")) if (open.has(item.id)) item.open = true;
  if (focused) (document.getElementById(focused)?.querySelector("summary") ?? document.getElementById(focused))?.focus();
}
setTimeout(look, POLL_MS);
