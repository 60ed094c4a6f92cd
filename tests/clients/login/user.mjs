// A user with a browser that does only what is needed: it follows redirects, keeps cookies, fills in forms.
import assert from 'node:assert/strict';

/** A browser's worth of cookies, by host. */
export class User {
  #cookies = new Map();

  /** Follows redirects until a page comes, or an address that begins with `callback`. */
  async visit(url, callback, init = {}) {
    for (let hops = 0; hops < 20; hops += 1) {
      if (String(url).startsWith(callback)) return { url: String(url) };
      const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      const headers = { accept: 'text/html', ...init.headers, ...(cookie && { cookie }) };
      const response = await fetch(url, { ...init, headers, redirect: 'manual' });
      for (const line of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        if (value && !/expires=Thu, 01 Jan 1970/i.test(line)) this.#cookies.set(name, value);
        else this.#cookies.delete(name);
      }
      const location = response.headers.get('location');
      if (!location || response.status < 300 || response.status > 399) {
        return { url: String(url), status: response.status, page: await response.text() };
      }
      [url, init] = [new URL(location, url), {}];
    }
    throw new Error('there is no end to the redirects');
  }

  async #submit(at, action, fields, callback) {
    const body = new URLSearchParams(fields).toString();
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return this.visit(new URL(action, at), callback, { method: 'POST', headers, body });
  }

  /** Logs in and decides (`consent` or `deny`) as often as asked; gives where that ends. */
  async logIn(url, callback, decision = 'consent') {
    let place = await this.visit(url, callback);
    const seen = [];
    for (let pages = 0; pages < 5 && place.page && place.status === 200; pages += 1) {
      seen.push(place.page);
      const actions = [...place.page.matchAll(/action="([^"]+)"/g)].map((match) => match[1]);
      const login = actions.find((action) => action.endsWith('/login'));
      const [, connection] = /name="connection" value="([^"]+)"/.exec(place.page) ?? [];
      const fields = login ? { user: 'ann', password: 'demo', ...(connection && { connection }) } : {};
      const action = login ?? actions.find((action) => action.endsWith(`/${decision}`));
      assert.ok(action, place.page);
      place = await this.#submit(place.url, action, fields, callback);
    }
    return { ...place, seen };
  }
}
