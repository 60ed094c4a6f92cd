// What a user sees: a login page, a consent page, an error page. No scripts, nothing from elsewhere.

const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** A template whose values are escaped, save those that are HTML already. */
function html(strings, ...values) {
  const text = (value) => (value?.html !== undefined ? value.html : String(value ?? '').replace(/[&<>"']/g, (c) => ESCAPES[c]));
  const list = (value) => (Array.isArray(value) ? value.map(text).join('') : text(value));
  return { html: strings.reduce((all, part, index) => all + list(values[index - 1]) + part) };
}

/**
 * Headers of every page. There is no `form-action`: browsers hold the redirect that follows a form to it too, and that
 * one leads to the client.
 */
export const HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};

function page(title, content) {
  return html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 28rem; margin: 10vh auto; padding: 0 1rem; color: #222; background: #fff }
label, fieldset { display: block; margin: 1rem 0 } input:not([type=radio]) { display: block; width: 100%; padding: .5rem; box-sizing: border-box; font: inherit }
button { font: inherit; padding: .5rem 1rem; margin: .5rem .5rem 0 0 } code { overflow-wrap: anywhere } .note { color: #555 } [role=alert] { color: #a00 }
</style>
<h1>${title}</h1>
${content}
</html>
`.html;
}

/** Who asks for what, for the user to know: the names are the client's own words. */
function asker({ client, redirectUri }) {
  return html`<p><strong>${client.clientName ?? client.clientId}</strong> wants to act for you. It registered itself, and
nobody has checked its name. You will be sent to <code>${redirectUri}</code>.</p>`;
}

/** The login page. `connections` are the names that are allowed; `error` says what was wrong the last time. */
export function login({ uid, client, redirectUri, connections, error }) {
  const choice = (name, index) => html`<label><input type="radio" name="connection" value="${name}"${index ? '' : html` checked`}> ${name}</label>`;
  return page('Log in', html`${asker({ client, redirectUri })}
${error ? html`<p role="alert">${error}</p>` : ''}
<form method="post" action="/interaction/${uid}/login">
${connections.length ? html`<fieldset><legend>Log in with</legend>${connections.map(choice)}</fieldset>` : html`<p>No connection is open to this application.</p>`}
<label>User name <input name="user" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form>
<p class="note">This is a demonstration server: any user name, with the password <code>demo</code>.</p>`);
}

/** The consent page: the client, and every scope of every API that it has not been allowed yet. */
export function consent({ uid, client, redirectUri, user, scopes, resources }) {
  const list = (names) => html`<ul>${names.map((name) => html`<li><code>${name}</code></li>`)}</ul>`;
  return page('Allow access', html`${asker({ client, redirectUri })}
<p>You are logged in as <strong>${user}</strong>.</p>
${scopes.length ? html`<p>It wants to know about you:</p>${list(scopes)}` : ''}
${resources.map(([api, names]) => html`<p>At <strong>${api}</strong> it wants to:</p>${list(names)}`)}
<form method="post" action="/interaction/${uid}/consent"><button>Allow</button></form>
<form method="post" action="/interaction/${uid}/deny"><button>Deny</button></form>`);
}

/** What the user sees if something is wrong. */
export function error({ error: code, description }) {
  return page('This did not work', html`<p>Error <code>${code}</code>: ${description}.</p>`);
}
