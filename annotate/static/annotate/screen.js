// What is on the screen, what was on it before, and what happens on send, skip, flag and undo.

import { Ahead, parsed } from "./ahead.js";
import * as clock from "./clock.js";
import * as diff from "./diff.js";
import * as drafts from "./drafts.js";
import * as keys from "./keys.js";
import { Notices } from "./notices.js";
import { Outbox } from "./outbox.js";
import * as questions from "./questions.js";

const UNDO_MS = 10 * 60_000;
const MOST_PAST = 20;
const ASK_AGAIN_MS = 3_000;

export const stage = document.getElementById("judge");
const { project, person } = stage.dataset;
const ahead = new Ahead(stage.dataset.ahead);
const pace = new clock.Pace(project);
const past = [];
let outbox = null;
let opening = null;
let current = null; // {assignment, guideline, nodes}; assignment is null where nothing is left
let waiting = false; // for a screen that is not here yet
let fetching = 0;
let busy = false;
let differences = false;

const form = (id) => document.getElementById(id);
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const notices = new Notices({ again: (id) => outbox.again(id), dismiss: (id) => outbox.dismiss(id), entries: () => outbox.mine() });

export const announce = notices.announce;

// Painting --------------------------------------------------------------------------------------
function paint(screen, { said = "The next one.", ms = 0, since = 0 } = {}) {
  waiting = false;
  current = screen;
  stage.replaceChildren(...screen.nodes);
  ready();
  clock.begin(ms);
  scrollTo(0, 0);
  stage.focus({ preventScroll: true });
  announce(screen.assignment ? said : "Nothing left to judge.");
  // After the frame that shows it: what somebody waited for.
  if (since) requestAnimationFrame(() => setTimeout(() => performance.measure("next-painted", { start: since, end: performance.now() })));
}

/** Make a freshly painted screen answer to pointer and keys. */
function ready() {
  notices.refresh();
  keys.name(stage);
  const answer = form("answer-form");
  if (answer && !current.restored) { current.restored = true; drafts.restore(answer); }
  questions.ready(stage);
  for (const option of stage.querySelectorAll("input[name=answer]")) option.onchange = mark;
  mark();
  followSides();
  if (diff.supported) diff.clear();
  // In a moment of its own, so that the screen is there first.
  if (differences) setTimeout(markDifferences);
  if (current.assignment && current.guideline && current.guideline !== Number(stage.dataset.guideline)) newGuidelines();
}

function mark() {
  const chosen = stage.querySelector("input[name=answer]:checked");
  for (const side of stage.querySelectorAll(".answer")) side.classList.toggle("chosen", side.dataset.side === chosen?.value);
}

/** On a narrow screen: say which of the two answers is in sight. */
function followSides() {
  const row = stage.querySelector(".answers");
  if (!row) return;
  const links = [...stage.querySelectorAll(".sides a")];
  const tell = () => {
    const second = row.scrollLeft > row.clientWidth / 2;
    links.forEach((link, i) => ((i === 1) === second ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  };
  row.onscroll = tell;
  links.forEach((link, i) => { link.onclick = (event) => { event.preventDefault(); row.children[i].scrollIntoView({ block: "nearest", inline: "start" }); }; });
  tell();
}

function toggled(act, on) {
  document.querySelector(`button[data-act=${act}]`)?.setAttribute("aria-pressed", String(on));
}

function markDifferences() {
  const [left, right] = stage.querySelectorAll(".answer .text");
  if (!differences || !right) return;
  const count = diff.mark(left, right);
  if (count === null) notices.say("These two share hardly a word, so nothing is marked.");
  else announce(`${count} words differ.`);
}

export function toggleDifferences() {
  if (!diff.supported || !document.querySelector("button[data-act=diff]")) return;
  differences = !differences;
  toggled("diff", differences);
  if (differences) markDifferences();
  else diff.clear();
}

export function toggleZoom() {
  toggled("zoom", document.body.classList.toggle("zoomed"));
}

// Guidelines ------------------------------------------------------------------------------------
async function fetchGuidelines() {
  const link = document.querySelector("a[data-act=guidelines]");
  const reply = await fetch(link.href);
  if (!reply.ok || reply.redirected) throw new Error(`the server answered ${reply.status}`);
  return new DOMParser().parseFromString(await reply.text(), "text/html");
}

/** The drawer, at once with the version of this screen; what changed before it follows. */
export async function openGuidelines() {
  const drawer = document.getElementById("guidelines");
  drawer.showModal();
  const place = document.getElementById("guidelines-versions");
  if (place.childNodes.length) return;
  try { place.replaceChildren(...(await fetchGuidelines()).getElementById("versions").childNodes); } catch { place.textContent = ""; }
}

async function newGuidelines() {
  stage.dataset.guideline = current.guideline;
  notices.say(`The guidelines have changed: this one is asked under version ${current.guideline}. “Guidelines” shows what is new.`);
  try {
    const page = await fetchGuidelines();
    document.getElementById("guidelines-now").replaceChildren(...page.getElementById("guideline").childNodes);
    document.getElementById("guidelines-versions").replaceChildren(...page.getElementById("versions").childNodes);
    const version = document.getElementById("guideline-version");
    if (version) version.textContent = current.guideline;
  } catch { /* the link beside still leads there */ }
}

// Leaving a screen --------------------------------------------------------------------------------
export async function send(since = 0) {
  const answer = form("answer-form");
  if (!answer || busy || waiting) return;
  if (!answer.checkValidity()) {
    const missing = [...answer.elements].find((field) => !field.checkValidity());
    announce(missing?.name === "answer" ? "Choose an answer first." : "Something is missing.");
    answer.reportValidity();
    return;
  }
  answer.elements.active_ms.value = clock.read();
  await leave("answer", answer, since);
}

export async function skip() {
  const skipping = form("skip-form");
  if (busy || waiting || !skipping.reportValidity()) return;
  await leave("skip", skipping);
}

async function leave(kind, filled, since) {
  busy = true;
  try {
    await opening;
    const left = { ...current, kind, ms: clock.read(), at: Date.now(), nodes: [...stage.childNodes] };
    left.id = await outbox.add(entryOf(kind, filled));
    drafts.forget(current.assignment);
    past.push(left);
    past.splice(0, past.length - MOST_PAST);
    const sent = outbox.durable ? null : outbox.settled(left.id);
    const pumped = () => outbox.pump();
    if (sent) { waitForNext(); pumped(); await sent; if (waiting) advance(since); } else { advance(since); pumped(); }
  } finally {
    busy = false;
  }
}

function entryOf(kind, filled) {
  const body = new URLSearchParams(new FormData(filled));
  body.delete("csrfmiddlewaretoken"); // the cookie's is sent, which outlives another sign-in
  return { kind, project, assignment: current.assignment, url: filled.action, body: body.toString() };
}

function advance(since = 0) {
  const next = ahead.next();
  if (next) paint(next, { since, ms: next.ms ?? 0 });
  else waitForNext();
}

function waitForNext() {
  if (waiting) return;
  waiting = true;
  current = { assignment: null, nodes: [] };
  const place = document.createElement("div");
  place.className = "waiting";
  place.setAttribute("role", "status");
  place.textContent = "The next one is on its way…";
  stage.replaceChildren(place);
  notices.refresh();
}

export async function flag() {
  const flagging = form("flag-form");
  if (!flagging.reportValidity()) return;
  await opening;
  await outbox.add(entryOf("flag", flagging));
  flagging.reset();
  flagging.closest("details").open = false;
  stage.focus({ preventScroll: true });
  notices.say("Flagged: the admins see it. Answer or skip it as you would.");
  outbox.pump();
}

// Taking back ---------------------------------------------------------------------------------------
export async function undo() {
  if (busy) return;
  busy = true;
  try {
    await opening;
    const last = past.at(-1);
    if (last && (await outbox.takeBack(last.id))) {
      past.pop();
      restore(last, "Taken back before it was sent: choose again.");
    } else if (last?.kind === "skip") {
      past.pop();
      notices.say("A skip that was sent cannot be taken back. Press again to take back what came before it.");
    } else if (last && Date.now() - last.at < UNDO_MS) {
      past.pop();
      // What may be stored already is taken back by the server, in its turn after what waits.
      await outbox.add(undoing({ assignment: last.assignment }));
      restore(last, "Taken back: choose again.");
      outbox.pump();
    } else {
      await outbox.add(undoing({}));
      waitForNext();
      outbox.pump();
    }
  } finally {
    busy = false;
  }
}

function undoing(more) {
  const body = new URLSearchParams({ key: newKey(), ...more });
  return { kind: "undo", project, assignment: more.assignment ?? null, url: stage.dataset.undo, body: body.toString() };
}

function restore(screen, said) {
  if (current.assignment) ahead.putBack({ ...current, nodes: [...stage.childNodes], ms: clock.read() });
  paint(screen, { said, ms: screen.ms });
  const key = form("answer-form")?.elements.key;
  if (key) key.value = newKey();
}

// What the server says --------------------------------------------------------------------------------
const told = {
  async sent(entry, { body = {}, refused }) {
    if (entry.kind === "answer" && !refused) {
      const ms = Number(new URLSearchParams(entry.body).get("active_ms"));
      if (entry.project === project) { notices.count("judged", 1); notices.count("to-go", -1); pace.add(1, ms); proposeBreak(ms); }
    } else if (entry.kind === "skip" && !refused && entry.project === project) {
      notices.count("to-go", -1);
    } else if (entry.kind === "undo") {
      if (!refused) { notices.count("judged", -1); notices.count("to-go", 1); pace.add(-1, 0); }
      else {
        await outbox.dismiss(entry.id); // nothing is lost by it
        notices.say(`Not taken back: ${refused}.`);
        if (entry.assignment && current.assignment === entry.assignment) advance();
      }
    }
    notices.pace(pace);
    ahead.take(body);
    if (body.next && waiting) paint(screenOf(body.next));
    else if (body.lost && current.assignment && Number(body.about) === current.assignment) lost(body.lost);
    await notices.unsent(outbox);
  },
  async drained() {
    if (waiting && !busy) await fetchNext();
    await notices.unsent(outbox);
  },
  state(state, why) { notices.state(state, why); notices.unsent(outbox); },
};

function proposeBreak(ms) {
  const minutes = Number(stage.dataset.break ?? 0);
  if (pace.breakIsDue(minutes, ms)) notices.say(`You have judged for ${Math.round(pace.now.ms / 60_000)} minutes. A short break does good; what is on the screen stays yours.`);
}

const screenOf = ({ assignment, html, guideline }) => {
  ahead.seen.add(assignment);
  return { assignment, guideline, nodes: parsed(html) };
};

function lost(why) {
  notices.say(`The one you were reading is no longer yours: ${why}. Here is the next.`);
  drafts.forget(current.assignment);
  advance();
}

async function fetchNext() {
  clearTimeout(fetching);
  const reply = await ahead.fill({ next: "1" });
  if (!waiting) return;
  if (reply.body?.next) {
    notices.state("", "");
    paint(screenOf(reply.body.next));
  } else {
    notices.state(reply.signedOut ? "signed out" : "offline", reply.later ?? reply.refused ?? "");
    fetching = setTimeout(() => { if (waiting) fetchNext(); }, ASK_AGAIN_MS);
  }
}

/** What is asked beside an entry that is sent: only with the last one, as only then it is of use. */
function extra(entry, alone) {
  if (entry.project !== project || !alone) return {};
  const asked = { have: ahead.have };
  if (waiting) asked.next = "1";
  else if (current.assignment) asked.shown = current.assignment;
  return asked;
}

// Beginning ---------------------------------------------------------------------------------------------
export async function begin() {
  drafts.sweep();
  const answer = form("answer-form");
  const assignment = answer ? Number(answer.elements.assignment.value) : null;
  current = { assignment, guideline: Number(stage.dataset.guideline), nodes: [...stage.childNodes] };
  ahead.seen.add(assignment);
  opening = Outbox.open({ person, extra, told });
  ready();
  outbox = await opening;
  const unsent = await outbox.waiting();
  // What this browser has answered and the server does not know yet is not asked for again.
  const answered = unsent.filter((entry) => entry.kind === "answer" || entry.kind === "skip").map((entry) => entry.assignment);
  for (const each of answered) ahead.seen.add(each);
  if (answered.includes(assignment)) waitForNext();
  notices.pace(pace);
  await outbox.pump();
  if (!waiting) await ahead.fill();
  stage.dataset.ready = "";
}

addEventListener("input", (event) => { if (event.target.form?.id === "answer-form") drafts.keep(event.target.form); });
addEventListener("change", (event) => { if (event.target.form?.id === "answer-form") drafts.keep(event.target.form); });
