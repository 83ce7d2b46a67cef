// What a person has done and the server does not have yet: kept in IndexedDB, sent in order, once.
//
// Every entry is a form as it would have been posted. A judgment and an undo carry an idempotency
// key, a skip and a flag are the same when they come twice, so sending again is always safe.
// An entry belongs to a person: on a shared browser nobody sees or sends another's.

const STORE = "outbox";
const FIRST_WAIT_MS = 1_000, LONGEST_WAIT_MS = 30_000, TIMEOUT_MS = 20_000;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Entries in IndexedDB. */
class Kept {
  durable = true;

  static async open() {
    const request = indexedDB.open("annotate", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    const kept = new Kept();
    kept.db = await done(request);
    kept.db.onversionchange = () => kept.db.close();
    return kept;
  }

  /** Run `work` on the store; resolves when the transaction is complete. */
  async within(mode, work) {
    const transaction = this.db.transaction(STORE, mode);
    const finished = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
    const [result] = await Promise.all([work(transaction.objectStore(STORE)), finished]);
    return result;
  }

  all() { return this.within("readonly", (store) => done(store.getAll())); }
  add(entry) { return this.within("readwrite", (store) => done(store.add(entry))); }
  remove(id) { return this.within("readwrite", (store) => done(store.delete(id))); }

  /** Change one entry, if it is still there; `change` may return null to delete it. */
  change(id, change) {
    return this.within("readwrite", async (store) => {
      const entry = await done(store.get(id));
      if (!entry) return null;
      const next = change(entry);
      if (next === null) await done(store.delete(id));
      else await done(store.put(next));
      return entry;
    });
  }
}

/** The same in memory, where IndexedDB is missing or refuses: the screen then waits for each reply. */
class Held {
  durable = false;
  entries = new Map();
  last = 0;

  async all() { return [...this.entries.values()]; }
  async add(entry) { this.last += 1; this.entries.set(this.last, { ...entry, id: this.last }); return this.last; }
  async remove(id) { this.entries.delete(id); }
  async change(id, change) {
    const entry = this.entries.get(id);
    if (!entry) return null;
    const next = change({ ...entry });
    if (next === null) this.entries.delete(id);
    else this.entries.set(id, next);
    return entry;
  }
}

const cookie = (name) => document.cookie.split("; ").find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";

/** POST a form; gives {body} or {refused}, {signedOut} or {later}, each with why. */
export async function post(url, body) {
  let reply;
  try {
    reply = await fetch(url, {
      method: "POST",
      body,
      redirect: "manual",
      headers: { "X-Requested-With": "fetch", "X-CSRFToken": cookie("csrftoken") },
      signal: AbortSignal.timeout?.(TIMEOUT_MS),
    });
    if (reply.type === "opaqueredirect" || reply.status === 401 || reply.status === 403) return { signedOut: true };
    if (reply.status >= 500 || reply.status === 408 || reply.status === 429) return { later: `the server answered ${reply.status}` };
    const json = reply.headers.get("Content-Type")?.includes("json") ? await reply.json() : {};
    if (reply.ok) return { body: json };
    return { refused: json.problem || `the server answered ${reply.status}`, body: json };
  } catch (error) {
    return { later: navigator.onLine === false ? "no network" : String(error.message ?? error) };
  }
}

export class Outbox {
  /** `extra(entry, alone)` gives what to send beside an entry; `told` has sent, drained and state. */
  static async open({ person, extra, told }) {
    const outbox = new Outbox();
    Object.assign(outbox, { person, extra, told, pumping: null, failures: 0, timer: 0, state: "", settling: new Map() });
    try {
      outbox.store = await Kept.open();
      await outbox.store.all();
    } catch {
      outbox.store = new Held();
    }
    addEventListener("online", () => outbox.pump(true));
    addEventListener("focus", () => { if (outbox.state) outbox.pump(true); });
    return outbox;
  }

  get durable() { return this.store.durable; }

  async mine() {
    return (await this.store.all()).filter((entry) => entry.person === this.person).sort((a, b) => a.id - b.id);
  }

  async waiting() { return (await this.mine()).filter((entry) => !entry.refused); }
  async refused() { return (await this.mine()).filter((entry) => entry.refused); }

  /** Keep an entry; it is on disk when this resolves. */
  async add(entry) {
    const whole = { ...entry, person: this.person, at: Date.now(), attempts: 0, refused: "" };
    try {
      return await this.store.add(whole);
    } catch {
      this.store = new Held(); // full or forbidden by now: wait for replies from here on
      return this.store.add(whole);
    }
  }

  /** Delete an entry that was never tried; false where the server may know of it. */
  async takeBack(id) {
    let taken = false;
    await this.store.change(id, (entry) => { taken = entry.attempts === 0; return taken ? null : entry; });
    return taken;
  }

  /** Resolves when the entry is sent or refused. */
  settled(id) {
    return new Promise((resolve) => this.settling.set(id, resolve));
  }

  dismiss(id) { return this.store.remove(id); }

  async again(id) {
    await this.store.change(id, (entry) => ({ ...entry, refused: "" }));
    return this.pump(true);
  }

  /** Send what waits, in order, one at a time over all tabs. */
  pump(now = false) {
    if (now) { clearTimeout(this.timer); this.failures = 0; }
    this.more = Boolean(this.pumping); // what is added while the last look is taken
    const exclusively = (work) => (navigator.locks ? navigator.locks.request("annotate-outbox", work) : work());
    this.pumping ??= exclusively(() => this.drain()).finally(() => {
      this.pumping = null;
      if (this.more && !this.state) this.pump();
    });
    return this.pumping;
  }

  async drain() {
    clearTimeout(this.timer);
    for (let waiting = await this.waiting(); waiting.length; waiting = await this.waiting()) {
      const [entry] = waiting;
      // From here on the server may know of it.
      if (!(await this.store.change(entry.id, (each) => ({ ...each, attempts: each.attempts + 1 })))) continue;
      const body = new URLSearchParams(entry.body);
      body.set("person", this.person);
      for (const [name, value] of Object.entries(this.extra(entry, waiting.length === 1))) body.set(name, value);
      const reply = await post(entry.url, body);
      if (reply.signedOut || reply.later) {
        this.failures += 1;
        const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.failures - 1)) * (0.8 + 0.4 * Math.random());
        this.timer = setTimeout(() => this.pump(), wait);
        this.tell(reply.signedOut ? "signed out" : "offline", reply.later ?? "");
        return;
      }
      this.failures = 0;
      if (reply.refused) await this.store.change(entry.id, (each) => ({ ...each, refused: reply.refused }));
      else await this.store.remove(entry.id);
      this.tell("");
      await this.told.sent(entry, reply);
      this.settling.get(entry.id)?.();
      this.settling.delete(entry.id);
    }
    this.tell("");
    await this.told.drained();
  }

  tell(state, why = "") {
    this.state = state;
    this.told.state(state, why);
  }
}
