// The tenant that the clients register with.
import assert from 'node:assert/strict';

/** The API that third parties may use, and one that they may not. */
export const API = 'https://notes.example';
export const OTHER_API = 'https://payroll.example';

/** Sets the tenant up: one API that third parties may use, a connection at domain level and one that is not. */
export async function setUp(gateway, token, registrar = 'store') {
  const manage = async (method, path, body) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const response = await fetch(`${gateway}/api/v2/${path}`, { method, headers, body: JSON.stringify(body) });
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.clone().text()}`);
    return response.json();
  };
  await manage('PATCH', 'tenants/settings', {
    flags: { enable_dynamic_client_registration: true },
    dcr_edge: { rate_limit: { burst: 1000, per_second: 1000 }, third_party_oidc_scopes: true, registrar },
  });
  for (const identifier of [API, OTHER_API]) {
    const scopes = ['read', 'write', 'erase'].map((value) => ({ value }));
    await manage('POST', 'resource-servers', { identifier, scopes, allow_offline_access: true });
  }
  await manage('POST', 'client-grants', {
    default_for: 'third_party_clients', audience: API, scope: ['read', 'write'], subject_type: 'user',
  });
  for (const [name, is_domain_connection] of [['staff', true], ['guests', true], ['partners', false]]) {
    await manage('POST', 'connections', { name, strategy: 'auth0', is_domain_connection });
  }
  // The edges know all of it within two seconds.
  for (const started = Date.now(); Date.now() - started < 2000; ) {
    const response = await fetch(`${gateway}/oidc/register`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"redirect_uris":[]}',
    });
    if (response.status === 400) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('registration is not open');
}

/** What a client must not get: each of these ends as it should, and never at the callback. */
export async function tryWhatIsForbidden(gateway, { clientId, clientSecret, redirectUri }) {
  const good = {
    client_id: clientId, response_type: 'code', redirect_uri: redirectUri, scope: 'read', state: 's', audience: API,
    code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256',
  };
  const authorize = async (changes) => {
    const parameters = Object.entries({ ...good, ...changes }).filter(([, value]) => value !== undefined);
    const url = `${gateway}/authorize?${new URLSearchParams(parameters)}`;
    const response = await fetch(url, { redirect: 'manual', headers: { accept: 'text/html' } });
    return [response.status, response.headers.get('location'), await response.text()];
  };
  const [status, location] = await authorize({});
  assert.ok([302, 303].includes(status) && location.includes('/interaction/'), `${status} ${location}`);
  for (const [what, changes, error] of [
    ['no PKCE', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
    ['plain', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['a foreign redirect URI', { redirect_uri: 'https://foreign.example/cb' }, 'invalid_request'],
    ['an audience without a grant', { audience: OTHER_API }, 'unauthorized_client'],
    ['a connection that is not at domain level', { connection: 'partners' }, 'invalid_request'],
    ['an id_token', { response_type: 'id_token', nonce: 'n' }, 'unsupported_response_type'],
    ['a scope without a grant', { scope: 'erase' }, 'invalid_scope'],
    ['a request object', { request: 'e30.e30.' }, 'invalid_request'],
  ]) {
    const [status, location, page] = await authorize(changes);
    assert.deepEqual([status, location], [400, null], what);
    assert.ok(page.includes(error), `${what}: ${page}`);
  }
  const redeem = async (fields) => {
    const response = await fetch(`${gateway}/oauth/token`, { method: 'POST', body: new URLSearchParams(fields) });
    return [response.status, (await response.json()).error];
  };
  const client = { client_id: clientId, ...(clientSecret && { client_secret: clientSecret }) };
  assert.deepEqual(
    await redeem({ ...client, grant_type: 'client_credentials', audience: API }), [400, 'unauthorized_client'],
  );
  const wrong = { client_id: clientId, client_secret: 'wrong', grant_type: 'authorization_code', code: 'c' };
  assert.deepEqual(await redeem({ ...wrong, code_verifier: 'v'.repeat(43) }), [401, 'invalid_client']);
  const closed = await fetch(`${gateway}/oauth/par`, { method: 'POST', body: new URLSearchParams(good) });
  assert.deepEqual([closed.status, (await closed.json()).error], [403, 'access_denied']);
}

/** The claims of an access token that is a JWT. */
export function claims(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
}
