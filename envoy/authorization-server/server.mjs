// An authorization server behind dcr-edge, for demonstrations and tests: oidc-provider, with the clients of dcr-store.
//
// Environment:
//   STORE_URL      dcr-store, such as http://127.0.0.1:8081
//   SERVER_TOKEN   from `dcr-store token --kind server --tenant TENANT`
//   TENANT         default
//   PORT           0: a free one. It listens on 127.0.0.1 and prints `listening on ADDRESS`
//   REGISTRATION   open: it registers clients itself at /reg, for a tenant with `registrar: forward`
//
// Its issuer is the host that the user came to, so that one server serves localhost and 127.0.0.1. Keys, sessions and
// tokens end with the process. Users are whoever logs in, with the password `demo`.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';

import Provider, { errors } from 'oidc-provider';

import { Clients, Store } from './clients.mjs';
import { Memory } from './memory.mjs';
import * as pages from './pages.mjs';

const { STORE_URL, SERVER_TOKEN, TENANT = 'default', PORT = '0', REGISTRATION } = process.env;
if (!STORE_URL || !SERVER_TOKEN) {
  console.error('set STORE_URL and SERVER_TOKEN');
  process.exit(2);
}

/** Most issuers at once. */
const MOST_ISSUERS = 16;

const store = new Store(STORE_URL, TENANT, SERVER_TOKEN);
const registered = new Map();
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomBytes(8).toString('hex') };
const cookieKey = randomBytes(32).toString('hex');
/** By the uid of an interaction: the connections that the edge allows. */
const allowedConnections = new Map();

/** What the edge says of the connections: names, or undefined if it says nothing. */
function connectionsOf(headers) {
  const header = headers['x-dcr-connections'];
  return header === undefined ? undefined : header.split(',').filter(Boolean).map(decodeURIComponent);
}

/** The client's grant of an API on behalf of users. */
function grantOf(client, api) {
  return client.policy?.grants.find((grant) => grant.audience === api && grant.subject_type === 'user');
}

const configuration = {
  adapter: (kind) => (kind === 'Client' ? new Clients(store, registered) : new Memory(kind)),
  jwks: { keys: [key] },
  cookies: { keys: [cookieKey] },
  scopes: ['openid', 'profile', 'email', 'offline_access'],
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
  clientAuthMethods: ['none', 'client_secret_post', 'client_secret_basic'],
  clientDefaults: { token_endpoint_auth_method: 'client_secret_post' },
  extraClientMetadata: { properties: ['policy'] },
  // What the edge lets through beside the parameters of the standards.
  extraParams: ['audience', 'connection', 'organization', 'correlation_id'],
  responseTypes: ['code'],
  routes: {
    authorization: '/authorize',
    token: '/oauth/token',
    revocation: '/oauth/revoke',
    userinfo: '/userinfo',
    jwks: '/.well-known/jwks.json',
    end_session: '/oidc/logout',
    registration: '/reg',
  },
  pkce: { required: (ctx, client) => client.policy?.require_pkce !== false },
  rotateRefreshToken: (ctx) => ctx.oidc.client.policy?.refresh_token_rotation !== false,
  expiresWithSession: () => false,
  ttl: { AccessToken: 3600, AuthorizationCode: 60, Grant: 1209600, IdToken: 3600, Interaction: 600, RefreshToken: 1209600, Session: 1209600 },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: id, email: `${encodeURIComponent(id)}@example.com`, email_verified: false }),
  }),
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: REGISTRATION === 'open', initialAccessToken: false },
    registrationManagement: { enabled: REGISTRATION === 'open' },
    resourceIndicators: {
      enabled: true,
      // The hosted product's word for the same, which the edge writes if the client names no API.
      defaultResource: (ctx, client, oneOf) => oneOf ?? ctx.oidc.params.audience,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, api, client) => {
        const grant = grantOf(client, api);
        if (!grant) throw new errors.InvalidTarget();
        return { audience: api, scope: grant.scope.join(' '), accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } };
      },
    },
    revocation: { enabled: true },
  },
  interactions: {
    url: (ctx, interaction) => {
      if (allowedConnections.size >= 10_000) allowedConnections.clear();
      allowedConnections.set(interaction.uid, connectionsOf(ctx.headers));
      return `/interaction/${interaction.uid}`;
    },
  },
  renderError: (ctx, out) => {
    ctx.set(pages.HEADERS);
    ctx.body = pages.error({ error: out.error, description: out.error_description ?? 'try again' });
  },
};

const providers = new Map();

/** The provider whose issuer is the host that a request came to. */
function providerOf(request) {
  const protocol = request.headers['x-forwarded-proto'] === 'https' ? 'https' : 'http';
  const issuer = `${protocol}://${request.headers.host}`;
  let provider = providers.get(issuer);
  if (!provider) {
    provider = new Provider(issuer, configuration);
    provider.proxy = true;
    provider.Client.prototype.compareClientSecret = function compareClientSecret(secret) {
      return registered.has(this.clientId) ? secret === this.clientSecret : store.authenticates(this.clientId, secret);
    };
    provider.on('server_error', (ctx, error) => console.error(`${ctx.method} ${ctx.path}: ${error.stack}`));
    if (providers.size >= MOST_ISSUERS) providers.delete(providers.keys().next().value);
    providers.set(issuer, provider);
  }
  return provider;
}

/** A form of a few fields. */
async function form(request) {
  let body = '';
  for await (const piece of request) {
    body += piece;
    if (body.length > 4096) throw new errors.InvalidRequest('the form is too long');
  }
  return new URLSearchParams(body);
}

function show(response, html, status = 200) {
  response.writeHead(status, pages.HEADERS).end(html);
}

/** The pages between an authorization request and its answer. The cookie of oidc-provider ties them to one browser. */
async function interact(provider, request, response, uid, action) {
  const details = await provider.interactionDetails(request, response);
  const { params, prompt, session } = details;
  if (details.uid !== uid) throw new errors.SessionNotFound('the interaction is another one');
  const client = await provider.Client.find(params.client_id);
  if (!client) throw new errors.InvalidClient('the client is gone');
  const asked = { uid, client, redirectUri: params.redirect_uri };
  const finish = (result, merge) => {
    allowedConnections.delete(uid);
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: merge });
  };
  if (action === 'deny') {
    return finish({ error: 'access_denied', error_description: 'the user said no' }, false);
  }
  if (prompt.name === 'login') {
    const connections = params.connection ? [params.connection] : allowedConnections.get(uid) ?? client.policy?.connections ?? [];
    if (action !== 'login') return show(response, pages.login({ ...asked, connections }));
    const fields = await form(request);
    const user = fields.get('user') ?? '';
    const isAllowed = connections.includes(fields.get('connection'));
    if (!/^[\w.@+-]{1,64}$/.test(user) || fields.get('password') !== 'demo' || !isAllowed) {
      return show(response, pages.login({ ...asked, connections, error: 'User name or password is wrong.' }), 400);
    }
    return finish({ login: { accountId: user } }, false);
  }
  const { missingOIDCScope = [], missingOIDCClaims = [], missingResourceScopes = {} } = prompt.details;
  if (action !== 'consent') {
    const resources = Object.entries(missingResourceScopes);
    return show(response, pages.consent({ ...asked, user: session.accountId, scopes: missingOIDCScope, resources }));
  }
  const known = details.grantId && (await provider.Grant.find(details.grantId));
  const grant = known || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (missingOIDCScope.length) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims.length) grant.addOIDCClaims(missingOIDCClaims);
  for (const [api, scopes] of Object.entries(missingResourceScopes)) grant.addResourceScope(api, scopes.join(' '));
  return finish({ consent: { grantId: await grant.save() } }, true);
}

/** Whoever comes from a third party's client for a refresh token is asked (OpenID Connect Core §11). */
function askForConsent(request) {
  const url = new URL(request.url, 'http://x');
  const scopes = (url.searchParams.get('scope') ?? '').split(' ');
  if (request.headers['x-dcr-third-party'] === '1' && scopes.includes('offline_access') && !url.searchParams.has('prompt')) {
    url.searchParams.set('prompt', 'consent');
    request.url = url.pathname + url.search;
  }
}

const server = http.createServer(async (request, response) => {
  try {
    const provider = providerOf(request);
    const path = request.url.split('?')[0];
    const [, uid, action] = /^\/interaction\/([\w-]+)(?:\/(login|consent|deny))?$/.exec(path) ?? [];
    if (uid && request.method === (action ? 'POST' : 'GET')) return await interact(provider, request, response, uid, action);
    if (path === '/.well-known/oauth-authorization-server') request.url = '/.well-known/openid-configuration';
    if (path === '/authorize' && request.method === 'GET') askForConsent(request);
    return await provider.callback()(request, response);
  } catch (error) {
    if (!(error instanceof errors.OIDCProviderError)) console.error(error.stack);
    const code = error.error ?? 'server_error';
    return show(response, pages.error({ error: code, description: error.error_description ?? 'see the log' }), error.status ?? 500);
  }
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
