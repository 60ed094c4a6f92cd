// The MCP SDK's own flow at a resource server that names the gateway: node mcp.mjs GATEWAY TOKEN
import assert from 'node:assert/strict';
import http from 'node:http';

import { auth } from '@modelcontextprotocol/sdk/client/auth.js';

import { claims, setUp, tryWhatIsForbidden } from './tenant.mjs';
import { User } from './user.mjs';

const [gateway, token] = process.argv.slice(2);
await setUp(gateway, token);

// The MCP server, which says who issues tokens for it (RFC 9728).
const server = http.createServer((request, response) => {
  const isMetadata = request.url.startsWith('/.well-known/oauth-protected-resource');
  // With the slash that URL libraries add: the API was made without it.
  const metadata = { resource: `${api}/`, authorization_servers: [gateway], scopes_supported: ['tools', 'offline_access'] };
  response.writeHead(isMetadata ? 200 : 401, { 'content-type': 'application/json' });
  response.end(JSON.stringify(isMetadata ? metadata : {}));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const api = `http://127.0.0.1:${server.address().port}`;

const manage = async (path, body) => {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const response = await fetch(`${gateway}/api/v2/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  assert.ok(response.ok, `${path}: ${response.status}`);
};
await manage('resource-servers', { identifier: api, scopes: [{ value: 'tools' }], allow_offline_access: true });
await manage('client-grants', {
  default_for: 'third_party_clients', audience: api, scope: ['tools'], subject_type: 'user',
});

/** What an MCP client keeps, in memory. */
class Provider {
  redirectUrl = 'http://127.0.0.1:33418/callback';
  clientMetadata = {
    client_name: 'An MCP client', redirect_uris: [this.redirectUrl], token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  };
  clientInformation = () => this.information;
  saveClientInformation = (information) => { this.information = information; };
  tokens = () => this.saved;
  saveTokens = (tokens) => { this.saved = tokens; };
  redirectToAuthorization = (url) => { this.url = url; };
  saveCodeVerifier = (verifier) => { this.verifier = verifier; };
  codeVerifier = () => this.verifier;
  state = () => 'of-an-mcp-client';
  invalidateCredentials = (scope) => {
    if (scope === 'all') this.information = undefined;
    if (scope === 'all' || scope === 'tokens') this.saved = undefined;
  };
}

const provider = new Provider();
assert.equal(await auth(provider, { serverUrl: api }), 'REDIRECT');
assert.match(provider.information.client_id, /^tpc_/);
assert.equal(provider.url.searchParams.get('resource'), `${api}/`);
const place = await new User().logIn(provider.url, provider.redirectUrl);
assert.ok(place.url.startsWith(provider.redirectUrl), JSON.stringify(place));
const answer = new URL(place.url).searchParams;
assert.equal(answer.get('state'), 'of-an-mcp-client');
assert.equal(await auth(provider, { serverUrl: api, authorizationCode: answer.get('code') }), 'AUTHORIZED');
const first = provider.saved;
assert.deepEqual([claims(first.access_token).aud, claims(first.access_token).scope], [api, 'tools']);
assert.ok(first.refresh_token);

// With a refresh token it needs no user.
assert.equal(await auth(provider, { serverUrl: api }), 'AUTHORIZED');
assert.notEqual(provider.saved.refresh_token, first.refresh_token);
assert.equal(claims(provider.saved.access_token).aud, api);

await tryWhatIsForbidden(gateway, { clientId: provider.information.client_id, redirectUri: provider.redirectUrl });

// A client that is gone is told so in a way that makes the SDK register anew.
const gone = provider.information.client_id;
const headers = { authorization: `Bearer ${token}` };
assert.equal((await fetch(`${gateway}/api/v2/clients/${gone}`, { method: 'DELETE', headers })).status, 204);
await new Promise((resolve) => setTimeout(resolve, 2000));
assert.equal(await auth(provider, { serverUrl: api }), 'REDIRECT');
assert.notEqual(provider.information.client_id, gone);
server.close();
server.closeAllConnections();
