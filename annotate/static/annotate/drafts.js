// What was chosen and typed but not sent, kept in this browser by assignment.

const PREFIX = "judge.draft.";
const KEEP_MS = 7 * 24 * 3_600_000;
const OURS = new Set(["csrfmiddlewaretoken", "assignment", "key", "active_ms"]);

const fields = (form) => [...form.elements].filter((field) => field.name && !OURS.has(field.name));
const picked = (field) => field.type === "radio" || field.type === "checkbox";

export function keep(form) {
  const values = fields(form)
    .filter((field) => (picked(field) ? field.checked : field.value))
    .map((field) => [field.name, field.value]);
  try {
    localStorage.setItem(PREFIX + form.elements.assignment.value, JSON.stringify({ at: Date.now(), values }));
  } catch { /* full or forbidden: the page itself still holds it */ }
}

/** Fill the form as it was left; returns whether there was anything. */
export function restore(form) {
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(PREFIX + form.elements.assignment.value)); } catch { return false; }
  if (!kept?.values?.length) return false;
  for (const field of fields(form)) {
    const mine = kept.values.filter(([name]) => name === field.name).map(([, value]) => value);
    if (!mine.length) continue;
    if (picked(field)) field.checked = mine.includes(field.value);
    else field.value = mine[0];
    field.closest("details")?.toggleAttribute("open", !picked(field) || field.closest("details").open);
    field.dispatchEvent(new Event(picked(field) ? "change" : "input", { bubbles: true }));
  }
  return true;
}

export function forget(assignment) {
  try { localStorage.removeItem(PREFIX + assignment); } catch { /* nothing was kept either */ }
}

export function sweep() {
  try {
    for (const name of Object.keys(localStorage).filter((each) => each.startsWith(PREFIX))) {
      if (Date.now() - (JSON.parse(localStorage.getItem(name))?.at ?? 0) > KEEP_MS) localStorage.removeItem(name);
    }
  } catch { /* nothing to sweep */ }
}
