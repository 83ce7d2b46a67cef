// The settings page: what annotators will be asked, drawn again while it is written.
// Without this module the Preview button does the same.

const form = document.getElementById("settings-form");
const preview = document.getElementById("preview");
const WAIT_MS = 300;

let waiting = 0;
let latest = 0;

async function draw() {
  const mine = ++latest;
  const body = new URLSearchParams(new FormData(form));
  body.set("preview", "1");
  try {
    const reply = await fetch(location.href, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
    // Only what was asked last is drawn: replies may overtake each other.
    if (mine === latest && !reply.redirected && [200, 422].includes(reply.status)) preview.innerHTML = await reply.text();
  } catch {
    preview.dataset.stale = "yes"; // no network: the last preview stays
  }
}

form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(draw, WAIT_MS); });
