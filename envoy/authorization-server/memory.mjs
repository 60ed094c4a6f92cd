// Everything of oidc-provider that is not a client: sessions, codes, tokens. In memory: it ends with the process.

/** Most entries of one kind; the oldest goes first. */
const MOST = 10_000;

/** The adapter of oidc-provider for one kind of thing. */
export class Memory {
  static #entries = new Map();
  #prefix;

  constructor(prefix) {
    this.#prefix = prefix;
  }

  get #all() {
    if (!Memory.#entries.has(this.#prefix)) Memory.#entries.set(this.#prefix, new Map());
    return Memory.#entries.get(this.#prefix);
  }

  async upsert(id, payload, expiresIn) {
    this.#all.delete(id);
    if (this.#all.size >= MOST) this.#all.delete(this.#all.keys().next().value);
    this.#all.set(id, { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
  }

  async find(id) {
    const entry = this.#all.get(id);
    return entry && Date.now() < entry.until ? entry.payload : undefined;
  }

  async #by(isIt) {
    return [...this.#all.values()].find((entry) => isIt(entry.payload) && Date.now() < entry.until)?.payload;
  }

  async findByUid(uid) {
    return this.#by((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.#by((payload) => payload.userCode === userCode);
  }

  async consume(id) {
    const entry = this.#all.get(id);
    if (entry) entry.payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.#all.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const entries of Memory.#entries.values()) {
      for (const [id, { payload }] of entries) if (payload.grantId === grantId) entries.delete(id);
    }
  }
}
