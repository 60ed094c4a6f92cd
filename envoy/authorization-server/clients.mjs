// The clients of an oidc-provider that asks dcr-store for them: the one file that another server would write anew.

/** How long an answer of the store is good, in milliseconds. */
const FRESH = 1000;

/** The members of a client that oidc-provider takes as they are (RFC 7591 §2). */
const MEMBERS = [
  'client_name', 'redirect_uris', 'response_types', 'token_endpoint_auth_method', 'application_type', 'client_uri',
  'logo_uri', 'policy_uri', 'tos_uri',
];

/** The grants that this server knows. */
const GRANTS = ['authorization_code', 'refresh_token'];

/** The interface of dcr-store for authorization servers, with a token of the kind `server`. */
export class Store {
  #url;
  #authorization;
  #answers = new Map();

  /** Of the store at `url`, for one tenant. */
  constructor(url, tenant, token) {
    this.#url = `${url}/edge/v1/tenants/${tenant}/clients`;
    this.#authorization = `Bearer ${token}`;
  }

  /** What the store says of a client: its metadata and its `policy`; undefined if there is none of that id. */
  async client(id) {
    // An id that means something in a path is none.
    if (!/^(?!\.\.?$)[\w.~-]{1,128}$/.test(id)) return undefined;
    const known = this.#answers.get(id);
    if (known && Date.now() - known.at < FRESH) return known.client;
    const response = await this.#ask(id, '');
    if (!response.ok && response.status !== 404) throw new Error(`the store answered ${response.status}`);
    const client = response.ok ? await response.json() : undefined;
    if (this.#answers.size >= 1000) this.#answers.clear();
    this.#answers.set(id, { client, at: Date.now() });
    return client;
  }

  /** Whether a secret is the client's. The store has its hash only, so it has to be asked. */
  async authenticates(id, secret) {
    const body = JSON.stringify({ client_secret: secret });
    const response = await this.#ask(id, '/authenticate', { method: 'POST', body });
    if (response.status !== 204 && response.status !== 401) throw new Error(`the store answered ${response.status}`);
    return response.status === 204;
  }

  #ask(id, path, init = {}) {
    const headers = { authorization: this.#authorization, 'content-type': 'application/json' };
    const signal = AbortSignal.timeout(2000);
    return fetch(`${this.#url}/${encodeURIComponent(id)}${path}`, { ...init, headers, signal });
  }
}

/** The adapter of oidc-provider for clients. `registered` has those that registered here, if this server is the registrar. */
export class Clients {
  constructor(store, registered) {
    this.store = store;
    this.registered = registered;
  }

  async find(id) {
    const [own, stored] = [this.registered.get(id), await this.store.client(id)];
    // What the store does not have is not held to anything, and is nobody's client.
    if (!stored) return undefined;
    const policy = stored.policy;
    if (own) return { ...own, policy };
    const client = Object.fromEntries(MEMBERS.filter((name) => name in stored).map((name) => [name, stored[name]]));
    client.client_id = id;
    client.grant_types = stored.grant_types.filter((grant) => GRANTS.includes(grant));
    // Only to be there: `authenticates` is what counts.
    if (client.token_endpoint_auth_method !== 'none') client.client_secret = 'is kept as a hash by the store';
    return { ...client, policy };
  }

  async upsert(id, client) {
    this.registered.set(id, client);
  }

  async destroy(id) {
    this.registered.delete(id);
  }
}
