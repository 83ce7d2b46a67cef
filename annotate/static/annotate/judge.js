// The judging screen: keys, active time, and submit + next in one request.
// Everything here also works as plain forms; this module only makes it faster.

const stage = document.getElementById("judge");
const announce = document.getElementById("announce");
const IDLE_MS = 60_000;
const RETRY_MS = 3_000;

let activeMs = 0;
let lastTick = performance.now();
let lastInput = performance.now();
let sending = false;

// Active time: counted while the page is visible and the person did something within a minute.
function tick() {
  const now = performance.now();
  if (!document.hidden && now - lastInput < IDLE_MS) activeMs += now - lastTick;
  lastTick = now;
}
setInterval(tick, 1_000);
for (const kind of ["keydown", "pointermove", "pointerdown", "wheel", "touchmove"]) {
  addEventListener(kind, () => { tick(); lastInput = performance.now(); }, { passive: true });
}
document.addEventListener("visibilitychange", tick);

const typing = (target) => target.closest("textarea, input:not([type=radio]), select, [contenteditable]");
const form = (id) => document.getElementById(id);

function mark() {
  const chosen = document.querySelector("input[name=answer]:checked");
  for (const side of stage.querySelectorAll(".answer")) {
    side.classList.toggle("chosen", side.dataset.side === chosen?.value);
  }
}

// Each answer names its keys in the page: what can be chosen differs from project to project.
const optionOf = (key) =>
  [...document.querySelectorAll("input[name=answer]")].find((option) => option.dataset.keys.split(" ").includes(key));

function choose(option) {
  option.checked = true;
  mark();
  announce.textContent = option.parentElement.textContent.trim();
}

async function send(which) {
  if (sending) return;
  if (which.id === "answer-form" && !document.querySelector("input[name=answer]:checked")) {
    announce.textContent = "Choose an answer first.";
    return;
  }
  sending = true;
  tick();
  if (which.elements.active_ms) which.elements.active_ms.value = Math.round(activeMs);
  const body = new URLSearchParams(new FormData(which));
  if (!body.get("key")) body.set("key", crypto.randomUUID());
  for (;;) {
    try {
      const reply = await fetch(which.action, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
      if (reply.redirected || reply.status === 403) { location.reload(); return; }
      if (reply.status >= 500) throw new Error(`the server answered ${reply.status}`);
      show(await reply.text(), which.id === "undo-form");
      break;
    } catch (error) {
      // The key makes sending again safe, so the answer is kept until the server has it.
      notSent(error);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  sending = false;
}

function notSent(error) {
  let box = document.getElementById("not-sent");
  if (!box) {
    box = document.createElement("div");
    box.id = "not-sent";
    box.className = "message error";
    box.setAttribute("role", "alert");
    stage.prepend(box);
  }
  box.textContent = `1 answer is not sent yet (${error.message}). It is kept here and sent again every few seconds; leave the page open.`;
}

function show(html, takenBack) {
  stage.innerHTML = html; // our own template: model text in it is already sanitised
  activeMs = 0;
  lastTick = performance.now();
  ready();
  scrollTo(0, 0);
  stage.focus({ preventScroll: true });
  const here = takenBack ? "Taken back: choose again." : "The next one.";
  announce.textContent = form("answer-form") ? here : "Nothing left to judge.";
}

function ready() {
  for (const button of stage.querySelectorAll("[data-open]")) {
    button.hidden = false;
    button.addEventListener("click", () => document.getElementById(button.dataset.open).showModal());
  }
  for (const id of ["answer-form", "undo-form"]) {
    form(id)?.addEventListener("submit", (event) => { event.preventDefault(); send(event.currentTarget); });
  }
  for (const option of stage.querySelectorAll("input[name=answer]")) option.addEventListener("change", mark);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (document.querySelector("dialog[open]")) return;
  const option = optionOf(event.key);
  if (option) { event.preventDefault(); choose(option); return; }
  if (event.key === "Enter" && !event.target.closest("button, a, summary")) {
    event.preventDefault();
    if (form("answer-form")) send(form("answer-form"));
  } else if (event.key.toLowerCase() === "u" && form("undo-form")) {
    send(form("undo-form"));
  } else if (event.key.toLowerCase() === "g") {
    document.getElementById("guidelines").showModal();
  } else if (event.key === "?") {
    document.getElementById("help").showModal();
  }
});

ready();
