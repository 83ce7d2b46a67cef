// What is asked beside the answer: keys, questions that wait, ranking, marking, the diff of a rewrite.
// Everything here also works as plain form fields, but for marking; nothing here sends. The settings
// page's preview uses it too.

import { heard } from "./keys.js";

const SIDES = ["left", "right"];
const typing = (target) => target.closest("textarea, select, input:not([type=radio], [type=checkbox]), [contenteditable]");
const inDialog = () => document.querySelector("dialog[open]");
const answerOf = () => document.querySelector("input[name=answer]:checked")?.value ?? "";
const say = (text) => { const box = document.getElementById("announce"); if (box) box.textContent = text; };
const changed = (element) => element.dispatchEvent(new Event("change", { bubbles: true }));

function choose(option) {
  option.checked = true;
  changed(option);
  say(option.parentElement.textContent.trim());
}

// A question that waits for an answer is shown after it; what is hidden is not sent.
function conditions(box) {
  const answer = answerOf();
  for (const question of box.querySelectorAll("[data-question]")) {
    const after = question.dataset.after.split(" ").filter(Boolean);
    // A step chooses its side, so steps stay where a side is among the answers they wait for.
    const leads = question.dataset.question === "strength" && SIDES.some((side) => after.includes(side));
    question.hidden = after.length > 0 && !after.includes(answer) && !leads;
    question.disabled = question.hidden;
  }
  const steps = box.querySelectorAll("input[name=strength]");
  for (const step of steps) if (step.checked && !goesWith(step, answer)) step.checked = false;
  const missing = SIDES.includes(answer) && steps.length && !box.querySelector("input[name=strength]:checked");
  steps[0]?.setCustomValidity(missing && !steps[0].closest("fieldset").disabled ? "Say how much better: press its number." : "");
  const rewrite = box.querySelector("textarea[name=rewrite]");
  const must = box.querySelector("[data-question=rewrite]")?.dataset.required === "yes";
  if (rewrite) rewrite.required = must && SIDES.includes(answer);
}

const goesWith = (step, answer) => answer === (Number(step.value) < 0 ? "left" : "right");

function strength(box) {
  for (const step of box.querySelectorAll("input[name=strength]")) {
    step.addEventListener("change", () => {
      const side = document.querySelector(`input[name=answer][value=${Number(step.value) < 0 ? "left" : "right"}]`);
      if (side && !side.checked) { side.checked = true; changed(side); }
      conditions(box);
    });
  }
}

// 1 to 8 choose a step; the arrows go one step to their side.
function strengthKey(event) {
  const steps = [...document.querySelectorAll("fieldset:not(:disabled) > label > input[name=strength]")];
  if (!steps.length || event.target.matches?.("[role=radiogroup] input, [role=textbox]")) return false;
  const exact = steps.find((step) => step.dataset.key === event.key);
  if (exact) { choose(exact); return true; }
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!move) return false;
  const now = steps.findIndex((step) => step.checked);
  const middle = steps.length / 2;
  const next = now < 0 ? (move < 0 ? middle - 1 : middle) : now + move;
  choose(steps[Math.max(0, Math.min(steps.length - 1, next))]);
  return true;
}

// Ranking: digits give the focused response its place, arrows go between responses.
function ranking(stage) {
  const board = stage.querySelector("[data-ranking]");
  const order = stage.querySelector(".order");
  if (!board || !order) return;
  const cards = [...board.querySelectorAll(".answer")];
  const select = (card) => card.querySelector("select");
  const draw = () => {
    const focused = order.contains(document.activeElement) ? document.activeElement.dataset.place : "";
    order.replaceChildren(...["", ...cards.map((_, number) => String(number + 1))].map(zone));
    if (focused) order.querySelector(`[data-place="${focused}"]`)?.focus();
  };
  const give = (card, place) => { select(card).value = place; draw(); say(`${letter(card)}: ${place ? `place ${place}` : "no place"}`); };
  const letter = (card) => card.querySelector("h2 span").textContent;
  function zone(place) {
    const box = document.createElement("div");
    box.className = "place";
    box.append(place ? `${place}.` : "–");
    for (const card of cards.filter((one) => select(one).value === place)) box.append(chip(card));
    box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      const card = cards.find((one) => one.dataset.place === event.dataTransfer.getData("text/plain"));
      if (card) give(card, place);
    });
    return box;
  }
  function chip(card) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.draggable = true;
    button.dataset.place = card.dataset.place;
    button.textContent = letter(card);
    button.setAttribute("aria-label", `${letter(card)}: ${select(card).value ? `place ${select(card).value}` : "no place"}; arrows move it`);
    button.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", card.dataset.place));
    button.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      const next = Math.max(0, Math.min(cards.length, Number(select(card).value) + move));
      give(card, next ? String(next) : "");
    });
    return button;
  }
  order.hidden = false;
  for (const card of cards) select(card).addEventListener("change", draw);
  draw();
  board.rank = (key) => {
    const at = cards.findIndex((card) => card.contains(document.activeElement));
    const move = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (move) { cards[at < 0 ? (move < 0 ? cards.length - 1 : 0) : (at + move + cards.length) % cards.length].focus(); return true; }
    if (key !== "0" && key !== "Backspace" && !(Number(key) >= 1 && Number(key) <= cards.length)) return false;
    const card = cards[at < 0 ? 0 : at];
    const removed = key === "0" || key === "Backspace";
    give(card, removed ? "" : key);
    const open = [...cards.slice(at + 1), ...cards].find((one) => !select(one).value);
    (removed ? card : open ?? card).focus();
    return true;
  };
}

// Offsets in the DOM are UTF-16 code units; what is stored counts code points.
const points = (text, units) => [...text.slice(0, units)].length;
const units = (text, n) => [...text].slice(0, n).join("").length;

function marking(box) {
  const store = box.querySelector("input[name=spans]");
  if (!store) return;
  const texts = JSON.parse(document.getElementById("response-texts").textContent);
  const panel = box.querySelector(".marking");
  const list = panel.querySelector(".marks");
  let spans = [];
  try { spans = JSON.parse(store.value || "[]"); } catch { store.value = ""; }
  const places = { left: panel.querySelector("[data-side=left]"), right: panel.querySelector("[data-side=right]") };
  const category = () => panel.querySelector("input[name=span-category]:checked").value;

  function draw() {
    store.value = spans.length ? JSON.stringify(spans) : "";
    for (const side of SIDES) {
      const text = texts[side];
      const edges = new Set([0, text.length]);
      const mine = spans.filter((span) => span.on === side).map((span) => ({ ...span, from: units(text, span.start), to: units(text, span.end) }));
      for (const span of mine) edges.add(span.from).add(span.to);
      const sorted = [...edges].sort((a, b) => a - b);
      places[side].replaceChildren(...sorted.slice(1).map((end, index) => {
        const start = sorted[index];
        const over = mine.filter((span) => span.from <= start && span.to >= end);
        const piece = document.createElement(over.length ? "mark" : "span");
        piece.title = over.map((span) => span.category).join(", ");
        piece.textContent = text.slice(start, end);
        return piece;
      }));
    }
    list.replaceChildren(...spans.map((span, index) => {
      const row = document.createElement("li");
      const text = [...texts[span.on]].slice(span.start, span.end).join("");
      const remove = document.createElement("button");
      remove.type = "button";
      remove.className = "plain";
      remove.textContent = "Remove";
      remove.setAttribute("aria-label", `Remove the mark ${span.category} on ${text.slice(0, 40)}`);
      remove.addEventListener("click", () => { spans.splice(index, 1); draw(); say("Mark removed."); });
      row.append(`${span.on === "left" ? "A" : "B"}: ${span.category} “${text.length > 60 ? `${text.slice(0, 59)}…` : text}” `, remove);
      return row;
    }));
  }

  function mark(side, from, to) {
    if (from >= to) return;
    const span = { on: side, start: points(texts[side], from), end: points(texts[side], to), category: category() };
    if (!spans.some((one) => JSON.stringify(one) === JSON.stringify(span))) spans.push(span);
    draw();
    say(`Marked as ${span.category}: ${texts[side].slice(from, to).slice(0, 60)}`);
  }

  // Where a point of the selection lies in the text: the length of all before it.
  function offset(place, node, at) {
    const range = document.createRange();
    range.setStart(place, 0);
    range.setEnd(node, at);
    return range.toString().length;
  }

  function selected(side) {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    const place = places[side];
    if (!place.contains(range.startContainer) || !place.contains(range.endContainer)) return null;
    return [offset(place, range.startContainer, range.startOffset), offset(place, range.endContainer, range.endOffset)];
  }

  // The caret of the keyboard: word by word, since the text is not editable.
  function show(side, from, to) {
    const place = places[side];
    const find = (at) => {
      const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
      let left = at;
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        if (left <= node.length) return [node, left];
        left -= node.length;
      }
      return [place, place.childNodes.length];
    };
    getSelection().setBaseAndExtent(...find(from), ...find(to));
  }

  for (const side of SIDES) {
    const place = places[side];
    let anchor = 0;
    let caret = 0;
    const words = () => [0, ...[...texts[side].matchAll(/\s+|$/gu)].flatMap((gap) => [gap.index, gap.index + gap[0].length])].filter((edge, index, all) => all.indexOf(edge) === index);
    place.addEventListener("pointerup", () => { const found = selected(side); if (found) { mark(side, ...found); getSelection().removeAllRanges(); } });
    place.addEventListener("keydown", (event) => {
      const edges = words();
      if (event.key === "ArrowRight") caret = edges.find((edge) => edge > caret) ?? texts[side].length;
      else if (event.key === "ArrowLeft") caret = edges.filter((edge) => edge < caret).at(-1) ?? 0;
      else if (event.key === " ") {
        mark(side, Math.min(anchor, caret), Math.max(anchor, caret));
        anchor = caret;
      } else return;
      event.preventDefault();
      event.stopPropagation();
      if (!event.shiftKey) anchor = caret;
      show(side, anchor, caret);
    });
  }
  panel.hidden = false;
  draw();
}

// Longest common subsequence over words; beyond this many cells only the ends are compared.
const MOST_CELLS = 4_000_000;

export function wordDiff(before, after) {
  const a = before.match(/\s+|[^\s]+/gu) ?? [];
  const b = after.match(/\s+|[^\s]+/gu) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const found = a.slice(0, start).map((word) => ["same", word]);
  const one = a.slice(start, a.length - end);
  const two = b.slice(start, b.length - end);
  if (one.length * two.length > MOST_CELLS) {
    found.push(...one.map((word) => ["del", word]), ...two.map((word) => ["ins", word]));
  } else {
    const width = two.length + 1;
    const table = new Uint32Array((one.length + 1) * width);
    for (let i = one.length - 1; i >= 0; i -= 1) {
      for (let j = two.length - 1; j >= 0; j -= 1) {
        table[i * width + j] = one[i] === two[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    let i = 0;
    let j = 0;
    while (i < one.length || j < two.length) {
      if (i < one.length && j < two.length && one[i] === two[j]) { found.push(["same", one[i]]); i += 1; j += 1; }
      else if (j === two.length || (i < one.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) { found.push(["del", one[i]]); i += 1; }
      else { found.push(["ins", two[j]]); j += 1; }
    }
  }
  return [...found, ...a.slice(a.length - end).map((word) => ["same", word])];
}

function rewriting(box) {
  const area = box.querySelector("textarea[name=rewrite]");
  if (!area) return;
  const texts = JSON.parse(document.getElementById("response-texts").textContent);
  const of = box.querySelector("select[name=rewrite_of]");
  const diff = box.querySelector(".diff");
  const side = () => of.value || (SIDES.includes(answerOf()) ? answerOf() : "");
  const draw = () => {
    diff.hidden = !side() || !area.value || area.value === texts[side()];
    if (diff.hidden) return;
    diff.replaceChildren(...wordDiff(texts[side()], area.value).map(([kind, word]) => {
      const piece = document.createElement(kind === "same" ? "span" : kind);
      piece.textContent = word;
      return piece;
    }));
  };
  // Begun from the answer itself; left as it was it is no rewrite and is not sent.
  area.addEventListener("focus", () => { if (!area.value && side()) { area.value = texts[side()]; area.dataset.begun = texts[side()]; draw(); } });
  area.addEventListener("blur", () => { if (area.value === area.dataset.begun) { area.value = ""; draw(); } });
  area.addEventListener("input", draw);
  of.addEventListener("change", draw);
  draw();
}

export function ready(stage) {
  const box = stage.querySelector("#questions");
  if (box && !box.dataset.ready) {
    box.dataset.ready = "yes";
    strength(box);
    marking(box);
    rewriting(box);
    for (const option of stage.querySelectorAll("input[name=answer]")) option.addEventListener("change", () => conditions(box));
    conditions(box);
  }
  const board = stage.querySelector("[data-ranking]");
  if (board && !board.dataset.ready) { board.dataset.ready = "yes"; ranking(stage); }
}

// Before the screen's own keys: these belong to a question, or keep an unfinished answer from being sent.
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
    // From a reason or a rewrite straight to the next one.
    event.target.blur();
    conditionsNow();
    document.querySelector("button[form=answer-form]")?.click();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || inDialog()) return;
  const form = document.getElementById("answer-form");
  if (!form || typing(event.target) || event.target.closest("details.aside form")) return;
  setTimeout(conditionsNow); // the screen's keys choose an answer without a change event
  if (event.key === "Enter" && !event.target.closest("button, a, summary") && answerOf()) {
    conditionsNow();
    if (!form.reportValidity()) { event.preventDefault(); event.stopImmediatePropagation(); say("Something is missing: see the marked field."); }
    return;
  }
  if (!heard(event.key)) return;
  const board = document.querySelector("[data-ranking]");
  const taken = board?.rank && !event.target.closest(".chip") ? board.rank(event.key) : strengthKey(event);
  if (taken) { event.preventDefault(); event.stopImmediatePropagation(); }
  // Between radio buttons of a question the arrows are the browser's.
  else if (event.key.startsWith("Arrow") && event.target.matches(".questions input")) event.stopImmediatePropagation();
}, true);

function conditionsNow() {
  const box = document.getElementById("questions");
  if (box) conditions(box);
}

// The judging screen calls `ready` itself, in its turn after drafts.
const preview = document.getElementById("preview");
if (preview) {
  ready(preview);
  new MutationObserver(() => ready(preview)).observe(preview, { childList: true });
}
