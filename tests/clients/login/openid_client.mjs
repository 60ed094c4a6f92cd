// openid-client registers, logs a user in, refreshes and revokes: node openid_client.mjs GATEWAY TOKEN [REGISTRAR]
import assert from 'node:assert/strict';

import * as client from 'openid-client';

import { API, claims, setUp, tryWhatIsForbidden } from './tenant.mjs';
import { User } from './user.mjs';

const [gateway, token, registrar] = process.argv.slice(2);
const isForwarded = registrar === 'forward';
await setUp(gateway, token, isForwarded ? registrar : undefined);

for (const method of ['none', 'client_secret_post']) {
  const redirectUri = method === 'none' ? 'http://127.0.0.1/cb' : 'https://app.example/cb';
  const authentication = method === 'none' ? client.None() : undefined;
  const config = await client.dynamicClientRegistration(
    new URL(gateway),
    {
      client_name: 'openid-client', redirect_uris: [redirectUri], token_endpoint_auth_method: method,
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    },
    authentication,
  );
  const { client_id: clientId, client_secret: clientSecret } = config.clientMetadata();
  assert.equal(clientId.startsWith('tpc_'), !isForwarded);
  const server = config.serverMetadata();
  assert.equal(server.registration_endpoint, `${gateway}/oidc/register`);
  assert.ok(server.supportsPKCE());

  // A native application takes a port that is free.
  const callback = method === 'none' ? 'http://127.0.0.1:49321/cb' : redirectUri;
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: callback, scope: 'openid read write erase offline_access', resource: API, state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256',
  });
  const place = await new User().logIn(url, callback);
  assert.ok(place.url.startsWith(callback), JSON.stringify(place));
  // Both connections at domain level were there to choose from, and no other.
  assert.ok(place.seen[0].includes('staff') && place.seen[0].includes('guests') && !place.seen[0].includes('partners'));
  assert.ok(place.seen[1].includes('openid-client') && place.seen[1].includes('write') && !place.seen[1].includes('erase'));
  const tokens = await client.authorizationCodeGrant(config, new URL(place.url), { pkceCodeVerifier, expectedState });
  const { aud, scope } = claims(tokens.access_token);
  assert.deepEqual([aud, scope], [API, 'read write']);
  assert.equal(tokens.claims().sub, 'ann');

  const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
  assert.equal(claims(refreshed.access_token).aud, API);
  await assert.rejects(client.refreshTokenGrant(config, tokens.refresh_token), { error: 'invalid_grant' });
  await client.tokenRevocation(config, refreshed.refresh_token);
  await assert.rejects(client.refreshTokenGrant(config, refreshed.refresh_token), { error: 'invalid_grant' });

  // A user who says no comes back with that error: the server has it from a page of its own.
  const denied = await new User().logIn(url, callback, 'deny');
  assert.ok(denied.url.startsWith(callback) && denied.url.includes('error=access_denied'), JSON.stringify(denied));
  // One who is not logged in and must not be asked is an error of the authorization request: it ends in a page.
  const silent = new URL(url);
  silent.searchParams.set('prompt', 'none');
  const page = await new User().visit(silent, callback);
  assert.equal(page.status, 400, JSON.stringify(page));
  assert.ok(page.page.includes('login_required'), page.page);

  await tryWhatIsForbidden(gateway, { clientId, clientSecret, redirectUri: callback });
}
