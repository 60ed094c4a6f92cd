// A person logs in with a browser and decides: node browser.mjs GATEWAY TOKEN CHROMIUM
import assert from 'node:assert/strict';
import http from 'node:http';

import { chromium } from 'playwright-core';

import { API, OTHER_API, setUp, tryWhatIsForbidden } from './tenant.mjs';

const [gateway, token, executablePath] = process.argv.slice(2);
await setUp(gateway, token);

// The client: a web page that sends users off, and the callback that they come back to.
const arrived = [];
const site = http.createServer((request, response) => {
  // The browser looks for the icon when it likes to.
  if (request.url !== '/favicon.ico') arrived.push(request.url);
  response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Back</title><h1>Back at the client</h1>');
});
await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
const callback = `http://127.0.0.1:${site.address().port}/cb`;
const registered = await fetch(`${gateway}/oidc/register`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({
    client_name: 'Notes & <b>Friends</b>', redirect_uris: ['http://127.0.0.1/cb'], token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'],
  }),
});
const { client_id: clientId } = await registered.json();
const good = {
  client_id: clientId, response_type: 'code', redirect_uri: callback, scope: 'openid read write', state: 'a b&c',
  audience: API, code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256',
};
const url = (changes = {}) => {
  const parameters = Object.entries({ ...good, ...changes }).filter(([, value]) => value !== undefined);
  return `${gateway}/authorize?${new URLSearchParams(parameters)}`;
};

const browser = await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
try {
  const complaints = [];
  const visit = async (address) => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => message.text().includes('Content Security Policy') && complaints.push(message.text()));
    return [page, await page.goto(address)];
  };
  const logIn = async (page) => {
    await page.getByLabel('guests').check();
    await page.getByLabel('User name').fill('ann');
    await page.getByLabel('Password').fill('demo');
    await page.getByRole('button', { name: 'Log in' }).click();
  };

  // She logs in and allows.
  let [page] = await visit(url());
  assert.equal(await page.title(), 'Log in');
  assert.equal(await page.getByLabel('partners').count(), 0);
  await page.getByLabel('User name').fill('ann');
  await page.getByLabel('Password').fill('wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  assert.match(await page.getByRole('alert').textContent(), /wrong/);
  await logIn(page);
  await page.getByRole('heading', { name: 'Allow access' }).waitFor();
  const text = await page.locator('body').innerText();
  for (const shown of ['Notes & <b>Friends</b>', callback, API, 'read', 'write', 'ann']) assert.ok(text.includes(shown), text);
  await page.getByRole('button', { name: 'Allow' }).click();
  await page.getByRole('heading', { name: 'Back at the client' }).waitFor();
  const back = new URL(page.url());
  assert.ok(back.searchParams.get('code'), page.url());
  assert.equal(back.searchParams.get('state'), 'a b&c');

  // He says no: the client learns that, and nothing else.
  [page] = await visit(url());
  await logIn(page);
  await page.getByRole('button', { name: 'Deny' }).click();
  await page.getByRole('heading', { name: 'Back at the client' }).waitFor();
  assert.deepEqual([new URL(page.url()).searchParams.get('error'), new URL(page.url()).searchParams.get('code')], ['access_denied', null]);

  // What is forbidden ends in a page of the gateway's, and the client learns nothing.
  const before = arrived.length;
  for (const [what, changes, error] of [
    ['no PKCE', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
    ['plain', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['a foreign redirect URI', { redirect_uri: `${callback}/foreign` }, 'invalid_request'],
    ['an audience without a grant', { audience: OTHER_API }, 'unauthorized_client'],
    ['a connection that is not at domain level', { connection: 'partners' }, 'invalid_request'],
    ['an id_token', { response_type: 'id_token' }, 'unsupported_response_type'],
    ['a silent login of somebody who is not logged in', { prompt: 'none' }, 'login_required'],
  ]) {
    const [page, response] = await visit(url(changes));
    assert.equal(response.status(), 400, what);
    assert.ok((await page.locator('code').first().textContent()).includes(error), what);
    assert.match(await page.locator('code').last().textContent(), /^[\w-]{32,}$/, 'the number of the decision');
    assert.equal(await page.getByRole('heading', { name: 'Login is not possible' }).count(), 1, what);
    await page.context().close();
  }
  await tryWhatIsForbidden(gateway, { clientId, redirectUri: callback });
  assert.equal(arrived.length, before, arrived.join());
  assert.deepEqual(complaints, []);

  // A page of the client's may read the server's metadata and ask for tokens only where the tenant says so.
  const [reader] = await visit(callback);
  const readable = (path, init) => reader.evaluate(
    ([address, init]) => fetch(address, init).then((response) => response.status, () => 'unreadable'), [`${gateway}${path}`, init],
  );
  const form = { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: `client_id=${clientId}` };
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const json = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' };
  assert.deepEqual([await readable('/oauth/token', form), await readable('/oidc/register', json)], ['unreadable', 'unreadable']);
  for (const [origins, expected] of [
    [['*'], [200, 'unreadable', 400]],
    [[new URL(callback).origin], [200, 400, 400]],
  ]) {
    const body = JSON.stringify({ dcr_edge: { cors_origins: origins } });
    const response = await fetch(`${gateway}/api/v2/tenants/settings`, { method: 'PATCH', headers, body });
    assert.equal(response.status, 200);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const seen = [
      await readable('/.well-known/openid-configuration'), await readable('/oauth/token', form), await readable('/oidc/register', json),
    ];
    assert.deepEqual(seen, expected, origins[0]);
  }
} finally {
  await browser.close();
  site.close();
  site.closeAllConnections();
}
