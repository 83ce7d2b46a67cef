// The line at the top and what is said above the texts: unsent, refused, signed out, without a network.

const byId = (id) => document.getElementById(id);
const WORDS = { answer: "answer", skip: "skip", flag: "flag", undo: "undo" };
const SOON_MS = 700; // what is sent within it needs no badge

export class Notices {
  constructor({ again, dismiss, entries }) {
    Object.assign(this, { again, dismiss, entries, now: "", timer: 0, words: "" });
  }

  announce = (text) => { byId("announce").textContent = text; };

  /** A sentence above the texts until the next screen but one. */
  say(text) {
    this.words = text;
    this.age = 0;
    this.refresh();
  }

  refresh() {
    const stage = byId("judge");
    let box = byId("said");
    if (!this.words || (this.age += 1) > 2) { this.words = ""; box?.remove(); return; }
    if (!box) {
      box = document.createElement("div");
      box.id = "said";
      box.className = "message";
      box.setAttribute("role", "status");
      stage.before(box);
    }
    if (box.textContent !== this.words) box.textContent = this.words;
  }

  /** Change a number in the line: what is stored, not what is hoped for. */
  count(id, by) {
    const place = byId(id);
    const n = Math.max(0, Number(place.dataset.count) + by);
    place.dataset.count = n;
    place.textContent = id === "judged" ? `${n} judged today` : `${n}${"more" in place.dataset ? "+" : ""} to go`;
  }

  pace(pace) {
    const place = byId("to-go");
    byId("pace").textContent = pace.inWords(Number(place.dataset.count), "more" in place.dataset);
  }

  state(state, why) {
    if (state !== this.now) this.announce(state === "offline" ? "No connection. What you do is kept and sent later." : state ? "You are signed out." : "Connected again.");
    this.now = state;
    byId("signed-out").hidden = state !== "signed out";
    byId("offline").hidden = state !== "offline";
    byId("offline").textContent = state === "offline" ? `The server cannot be reached (${why}). What you do is kept in this browser and sent as soon as it can.` : "";
  }

  async unsent(outbox) {
    const mine = await this.entries();
    const waiting = mine.filter((entry) => !entry.refused);
    const badge = byId("unsent");
    badge.textContent = `${waiting.length} unsent`;
    clearTimeout(this.timer);
    const show = () => { badge.hidden = !waiting.length; };
    if (this.now || !waiting.length || !badge.hidden) show();
    else this.timer = setTimeout(() => this.unsent(outbox).then(() => this.late()), SOON_MS);
    this.refusals(mine.filter((entry) => entry.refused));
  }

  /** Something has waited for longer than a send takes. */
  async late() {
    const waiting = (await this.entries()).filter((entry) => !entry.refused && Date.now() - entry.at > SOON_MS);
    byId("unsent").hidden = !waiting.length;
  }

  refusals(entries) {
    const boxes = entries.map((entry) => {
      const box = document.createElement("div");
      box.className = "message error";
      const said = new URLSearchParams(entry.body).get("answer");
      box.append(`Not stored: your ${WORDS[entry.kind]} of ${new Date(entry.at).toLocaleTimeString()}${said ? ` (${said})` : ""}. ${entry.refused}.`);
      const row = document.createElement("div");
      row.className = "row";
      for (const [label, act] of [["Send again", this.again], ["I have seen it", this.dismiss]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = label;
        button.onclick = async () => { await act(entry.id); box.remove(); };
        row.append(button);
      }
      box.append(row);
      return box;
    });
    const place = byId("refused");
    if (boxes.map((box) => box.firstChild.data).join() !== [...place.children].map((box) => box.firstChild.data).join()) place.replaceChildren(...boxes);
  }
}
