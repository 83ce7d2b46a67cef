// The judging screen. Everything here also works as plain forms; these modules make it instant.

import * as keys from "./keys.js";
import * as screen from "./screen.js";

const { stage } = screen;

function open(box) {
  const details = document.getElementById(box);
  if (!details) return;
  details.open = true;
  details.querySelector("input:not([type=hidden])").focus();
}

const ACTS = {
  send: (event) => screen.send(event.timeStamp),
  skip: () => open("skip-box"),
  flag: () => open("flag-box"),
  undo: () => screen.undo(),
  diff: () => screen.toggleDifferences(),
  zoom: () => screen.toggleZoom(),
  guidelines: () => screen.openGuidelines(),
  help: () => document.getElementById("help").showModal(),
};
const FORMS = { "answer-form": (event) => screen.send(event.timeStamp), "skip-form": screen.skip, "flag-form": screen.flag, "undo-form": screen.undo };

addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const box = event.target.closest?.("details.aside[open]");
    if (box) { box.open = false; box.querySelector("summary").focus(); }
    else if (keys.typing(event.target) && stage.contains(event.target)) stage.focus({ preventScroll: true });
    return;
  }
  const asked = keys.asked(event);
  if (!asked) return;
  event.preventDefault();
  if (asked.option) {
    asked.option.checked = true;
    asked.option.dispatchEvent(new Event("change", { bubbles: true }));
    screen.announce(asked.option.parentElement.textContent.trim());
  } else ACTS[asked.act](event);
});

addEventListener("submit", (event) => {
  const work = FORMS[event.target.id];
  if (!work) return;
  event.preventDefault();
  work(event);
});

addEventListener("click", (event) => {
  const act = event.target.closest(".line [data-act]")?.dataset.act;
  if (act) { event.preventDefault(); ACTS[act](event); }
  event.target.closest("[data-close]")?.closest("dialog").close();
  for (const box of document.querySelectorAll("details.aside[open]")) if (!box.contains(event.target)) box.open = false;
});

for (const button of document.querySelectorAll(".line [data-act]")) button.hidden = false;
keys.settings(document.getElementById("help"));
screen.begin();
