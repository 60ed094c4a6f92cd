// Drives /api/v2/clients by the SDK, as its documentation says: node clients.mjs PACKAGES DOMAIN TOKEN
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [packages, domain, token] = process.argv.slice(2);
const { ManagementClient, ManagementError } = createRequire(`${packages}/`)("auth0");
const { clients, tenants } = new ManagementClient({ domain, token, maxRetries: 0 });

await tenants.settings.update({ flags: { enable_dynamic_client_registration: true } });
const register = async () =>
  fetch(`https://${domain}/oidc/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ client_name: "Stranger", redirect_uris: ["cursor://a/cb"], token_endpoint_auth_method: "none" }),
  });
// The edges have the settings within two seconds.
let answer = await register();
for (const started = Date.now(); answer.status !== 201 && Date.now() - started < 2000; ) answer = await register();
assert.equal(answer.status, 201);
const stranger = await answer.json();

const body = {
  name: "Partner",
  description: "Made by hand",
  logo_uri: "https://partner.example/logo.png",
  callbacks: ["https://partner.example/cb"],
  grant_types: ["authorization_code", "refresh_token", "client_credentials"],
  token_endpoint_auth_method: "client_secret_post",
  app_type: "regular_web",
  client_metadata: { contract: "7" },
  redirection_policy: "allow_always",
  is_first_party: false,
  third_party_security_mode: "strict",
};
const { client_secret, ...partner } = await clients.create(body);
assert.match(partner.client_id, /^tpc_[0-9A-Za-z]{32}$/);
assert.match(client_secret, /^[0-9A-Za-z_-]{64}$/);
const { client_id, created_at, updated_at } = partner;
assert.deepEqual(partner, { ...body, client_id, tenant: "default", created_at, updated_at });
assert.deepEqual(await clients.get(client_id), { ...partner, effective_permissions: [] });
assert.deepEqual(await clients.get(client_id, { fields: "name,app_type" }), { name: "Partner", app_type: "regular_web" });
const rest = await clients.get(client_id, { fields: "client_metadata,callbacks", include_fields: false });
assert.deepEqual([rest.client_metadata, rest.callbacks, rest.name], [undefined, undefined, "Partner"]);

const { client_secret: rotated, ...after } = await clients.rotateSecret(client_id);
assert.match(rotated, /^[0-9A-Za-z_-]{64}$/);
assert.notEqual(rotated, client_secret);
assert.deepEqual({ ...after, updated_at }, partner);

const { effective_permissions, ...seen } = await clients.get(stranger.client_id);
assert.deepEqual(effective_permissions, []);
assert.deepEqual(
  [seen.name, seen.callbacks, seen.external_metadata_type, seen.external_metadata_created_by, seen.redirection_policy],
  ["Stranger", ["cursor://a/cb"], "dcr", "client", "open_redirect_protection"],
);
const change = {
  name: "Known",
  description: "Talked to them",
  callbacks: ["https://known.example/cb", "http://localhost:8080/cb"],
  grant_types: ["authorization_code", "refresh_token"],
  client_metadata: { ticket: "1" },
  redirection_policy: "allow_always",
  app_type: "native",
};
const changed = await clients.update(stranger.client_id, change);
assert.deepEqual(changed, { ...seen, ...change, updated_at: changed.updated_at });

for (const number of [1, 2, 3]) {
  await clients.create({ name: `More ${number}`, callbacks: ["https://more.example/cb"], app_type: "spa", token_endpoint_auth_method: "none" });
}
const machine = await clients.create({ name: "Machine", grant_types: ["client_credentials"], app_type: "non_interactive" });
assert.deepEqual([machine.callbacks, machine.grant_types], [[], ["client_credentials"]]);
await clients.delete(machine.client_id);

const names = async (query) => {
  const found = [];
  for await (const client of await clients.list(query)) found.push(client.name);
  return found;
};
const all = ["Known", "Partner", "More 1", "More 2", "More 3"];
for (const per_page of [1, 2, 5, 100]) assert.deepEqual(await names({ per_page }), all);
assert.deepEqual(await names({ per_page: 2, app_type: "spa,native" }), ["Known", "More 1", "More 2", "More 3"]);
assert.deepEqual(await names({ is_first_party: false, is_global: false, fields: "name", include_fields: true }), all);
assert.deepEqual(await names({ is_first_party: true }), []);
const page = await clients.list({ page: 1, per_page: 2, include_totals: true });
assert.deepEqual([page.response.start, page.response.limit, page.response.total], [2, 2, 5]);

const refused = async (call, status, text) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof ManagementError, error);
    assert.equal(error.statusCode, status);
    assert.match(error.message + JSON.stringify(error.body), text);
    return true;
  });
await refused(clients.create({ name: "x", callbacks: ["http://x.example/cb"] }), 400, /callbacks\[0\]/);
await refused(clients.update(client_id, { is_first_party: true }), 400, /is_first_party/);
await refused(clients.rotateSecret(stranger.client_id), 400, /public client/);
await refused(clients.get("tpc_nobody"), 404, /client/);

for await (const { client_id } of await clients.list({ per_page: 100 })) await clients.delete(client_id);
await clients.delete(client_id);
assert.deepEqual(await names({}), []);
