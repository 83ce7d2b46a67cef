// Single-key shortcuts: each can be given another key, and all can be switched off (WCAG 2.1.4).

const PLACE = "judge.keys";
const FIRST = {
  left: "1", right: "2", tie: "=", both_bad: "0", skip: "s", flag: "f", undo: "u",
  diff: "d", zoom: "z", guidelines: "g", help: "?",
};

// The server keeps them with the person; this browser holds what it has not been told yet. Only the
// judging screen has the form; where answers are revised or previewed, what this browser holds counts.
const form = document.getElementById("keys-form");
const person = form?.dataset.person;
const told = form
  ? JSON.parse(document.getElementById("hotkeys").textContent)
  : { on: true, pace: true, keys: {}, kept: false };
let wishes = { on: told.on, pace: told.pace, keys: told.keys };

let local = null;
try { local = JSON.parse(localStorage.getItem(PLACE)); } catch { /* as the server says */ }
// Before there was a server to tell, nothing said whose they were.
if (local && (!form || ((local.person ?? person) === person && (local.untold || !told.kept)))) {
  wishes = { on: local.on ?? true, pace: local.pace ?? true, keys: local.keys ?? {} };
  if (form) tell();
}

const keyOf = (act) => wishes.keys[act] ?? FIRST[act];
const shown = (key) => (key.length === 1 ? key.toUpperCase() : key);

function store(untold) {
  try { localStorage.setItem(PLACE, JSON.stringify({ person, untold, ...wishes })); } catch { /* for this page only */ }
}

/** Tell the server; without a network it is told when the screen is opened next. */
async function tell() {
  store(true);
  const sent = JSON.stringify(wishes);
  const body = new URLSearchParams({ csrfmiddlewaretoken: form.elements.csrfmiddlewaretoken.value, ...wishes.keys });
  for (const name of ["on", "pace"]) if (wishes[name]) body.set(name, "on");
  try {
    const reply = await fetch(form.action, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
    // Not when something else was chosen meanwhile: that is told by itself.
    if (reply.ok && !reply.redirected && sent === JSON.stringify(wishes)) store(false);
  } catch { /* kept here until then */ }
}

/** Whether a key may mean something by itself; arrows and Enter always do. */
export const heard = (key) => wishes.on || key.length > 1;

/** Write the keys where the page names them. */
export function name(root = document) {
  document.body.classList.toggle("no-keys", !wishes.on);
  document.body.classList.toggle("no-pace", !wishes.pace);
  for (const place of root.querySelectorAll("kbd[data-of]")) place.textContent = shown(keyOf(place.dataset.of));
}

export const typing = (target) =>
  target.closest?.("textarea, input:not([type=radio], [type=checkbox]), select, [contenteditable]");

/** What a key press asks for: {option}, {act}, or null. Never while somebody types or fills in a box. */
export function asked(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  if (typing(event.target) || event.target.closest?.("details.aside form") || document.querySelector("dialog[open]")) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const single = key.length === 1;
  if (single && !wishes.on) return null;
  const options = [...document.querySelectorAll("#judge input[name=answer]")];
  const named = options.find((option) => option.dataset.keys?.split(" ").includes(event.key));
  if (named) return { option: named };
  if (key === "Enter") return event.target.closest?.("button, a, summary") ? null : { act: "send" };
  const act = single && Object.keys(FIRST).find((each) => keyOf(each) === key);
  if (!act) return null;
  const option = options.find((each) => each.dataset.act === act);
  if (option) return { option };
  return ["left", "right", "tie", "both_bad"].includes(act) ? null : { act };
}

/** The dialog in which keys are changed. */
export function settings(dialog) {
  const problem = dialog.querySelector("#keys-problem");
  const inputs = [...dialog.querySelectorAll("[data-set]")];
  const fill = () => {
    for (const input of inputs) {
      const { set } = input.dataset;
      if (input.type === "checkbox") input.checked = wishes[set];
      else { input.value = shown(keyOf(set)); input.autocomplete = "off"; }
    }
    name();
  };
  for (const input of inputs) {
    const { set } = input.dataset;
    const change = (value) => {
      problem.textContent = "";
      if (input.type === "checkbox") wishes[set] = input.checked;
      else {
        const key = value.trim().toLowerCase();
        const taken = Object.keys(FIRST).find((act) => act !== set && keyOf(act) === key);
        if (key && !taken) wishes.keys[set] = key;
        if (taken) problem.textContent = `${shown(key)} is taken already; give that one another key first.`;
      }
      tell();
      fill();
    };
    input.addEventListener("focus", () => input.select?.());
    input.addEventListener("keydown", (event) => {
      if (input.type === "checkbox" || event.key.length !== 1 || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      change(event.key);
    });
    // Keyboards on glass press no keys.
    input.addEventListener(input.type === "checkbox" ? "change" : "input", () => change(input.value.slice(-1)));
    input.addEventListener("blur", fill);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  dialog.querySelector("#keys-reset").addEventListener("click", () => { wishes = { on: true, pace: true, keys: {} }; tell(); fill(); });
  fill();
}
