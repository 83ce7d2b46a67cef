// Active time: counted while the page is visible and the person did something within a minute.
// Nothing here is shown as a countdown; the pace is an average of this sitting and can be hidden.

const IDLE_MS = 60_000;
const ENOUGH = 3; // judgments before a pace says anything

let activeMs = 0;
let lastTick = performance.now();
let lastInput = performance.now();

export function tick() {
  const now = performance.now();
  const until = Math.min(now, lastInput + IDLE_MS); // what came after the idle cut does not count
  if (!document.hidden && until > lastTick) activeMs += until - lastTick;
  lastTick = now;
}

export const idle = () => document.hidden || performance.now() - lastInput > 2 * IDLE_MS;

/** Begin (or, after an undo, go on) with a screen that has been read for `ms` already. */
export function begin(ms = 0) {
  tick();
  activeMs = ms;
  lastInput = performance.now();
}

export function read() {
  tick();
  return Math.round(activeMs);
}

setInterval(tick, 1_000);
for (const kind of ["keydown", "pointermove", "pointerdown", "wheel", "touchmove"]) {
  addEventListener(kind, () => { tick(); lastInput = performance.now(); }, { passive: true });
}
// Called after `hidden` has changed: what was visible until now counts, what was hidden does not.
document.addEventListener("visibilitychange", () => {
  const now = performance.now();
  if (document.hidden) activeMs += Math.max(0, Math.min(now, lastInput + IDLE_MS) - lastTick);
  lastTick = now;
});

/** The sitting of one project: judgments and active time, kept over reloads of this tab. */
export class Pace {
  constructor(project) {
    this.place = `judge.pace.${project}`;
    try { this.now = JSON.parse(sessionStorage.getItem(this.place)) ?? { n: 0, ms: 0 }; } catch { this.now = { n: 0, ms: 0 }; }
  }

  add(n, ms) {
    this.now = { n: this.now.n + n, ms: this.now.ms + ms };
    try { sessionStorage.setItem(this.place, JSON.stringify(this.now)); } catch { /* full or forbidden: this page only */ }
  }

  /** Whether the last judgment went over another `minutes` of active time, as 45 or 90. */
  breakIsDue(minutes, ms) {
    const spans = (total) => Math.floor(total / (minutes * 60_000));
    return minutes > 0 && spans(this.now.ms) > spans(this.now.ms - ms);
  }

  /** "38/h · about 40 min left", or nothing while there is too little to say. */
  inWords(toGo, more) {
    if (this.now.n < ENOUGH || this.now.ms <= 0) return "";
    const perHour = this.now.n / (this.now.ms / 3_600_000);
    const minutes = Math.ceil((toGo / perHour) * 60);
    const left = minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
    return `${Math.round(perHour)}/h` + (toGo ? ` · ${more ? "more than" : "about"} ${left} left` : "");
  }
}
