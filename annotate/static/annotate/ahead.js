// The screens that come next: fetched while this one is read, parsed, and painted without waiting.

import { idle } from "./clock.js";
import { post } from "./outbox.js";

const RENEW_MS = 25_000; // an unshown lease lives 60 s

export class Ahead {
  constructor(url) {
    this.url = url;
    this.screens = [];
    this.seen = new Set();
    this.failed = false;
    setInterval(() => { if (!idle()) this.fill(); }, RENEW_MS);
  }

  /** What a request says of them, to get more with its reply. */
  get have() { return this.screens.map((screen) => screen.assignment).join(","); }

  /** Take in what a reply brought: {screens, gone}. */
  take({ screens = [], gone = [] }) {
    this.screens = this.screens.filter((screen) => screen.putBack || !gone.includes(screen.assignment));
    for (const { assignment, html, guideline } of screens) {
      if (this.seen.has(assignment)) continue;
      this.seen.add(assignment);
      this.screens.push({ assignment, guideline, nodes: parsed(html) });
    }
  }

  next() { return this.screens.shift() ?? null; }

  /** What was on the screen when something before it was taken back. */
  putBack(screen) { this.screens.unshift({ ...screen, putBack: true }); }

  /** Renew and fill up; with `more` the request asks for other things too. Gives the reply. */
  async fill(more = {}) {
    const reply = await post(this.url, new URLSearchParams({ have: this.have, ...more }));
    if (reply.body) this.take(reply.body);
    return reply;
  }
}

/** The nodes of our own template; model text in it is already sanitised. */
export function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return [...template.content.childNodes];
}
