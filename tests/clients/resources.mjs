// Drives APIs, connections and client grants by the SDK: node resources.mjs PACKAGES DOMAIN TOKEN
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [packages, domain, token] = process.argv.slice(2);
const { ManagementClient, ManagementError } = createRequire(`${packages}/`)("auth0");
const { resourceServers, connections, clientGrants, clients, tenants } = new ManagementClient({ domain, token, maxRetries: 0 });

const all = async (page) => {
  const items = [];
  for await (const item of page) items.push(item);
  return items;
};
const refused = async (call, status) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof ManagementError, error);
    assert.equal(error.statusCode, status);
    return true;
  });

// What the seed page asks the owner for: an API with default permissions, a connection at domain level, the switch.
const scopes = [{ value: "read:it", description: "Read it" }, { value: "write:it" }];
const api = await resourceServers.create({ identifier: "https://api.example/", name: "API", scopes, allow_offline_access: true });
assert.deepEqual([api.identifier, api.name, api.scopes, api.allow_offline_access, api.is_system], ["https://api.example/", "API", scopes, true, false]);
const grant = await clientGrants.create({
  default_for: "third_party_clients", audience: api.identifier, scope: ["read:it"], subject_type: "user",
});
assert.match(grant.id, /^cgr_/);
const connection = await connections.create({ name: "users", strategy: "auth0", is_domain_connection: false });
assert.match(connection.id, /^con_/);
assert.equal((await connections.update(connection.id, { is_domain_connection: true })).is_domain_connection, true);
const settings = await tenants.settings.update({ flags: { enable_dynamic_client_registration: true } });
assert.equal(settings.flags.enable_dynamic_client_registration, true);
assert.deepEqual((await tenants.settings.get()).flags, settings.flags);

// What a client may do: nothing but a warning, the default, its own grant.
const { client_id } = await clients.create({ name: "Partner", callbacks: ["https://partner.example/cb"] });
const permitted = async () => {
  const { data, rawResponse } = await clients.get(client_id).withRawResponse();
  return [data.effective_permissions, rawResponse.headers.get("warning")?.includes("can reach no API") ?? false];
};
const permission = { audience: api.identifier, subject_type: "user" };
assert.deepEqual(await permitted(), [[{ ...permission, scope: ["read:it"], source: "default" }], false]);
const own = await clientGrants.create({ ...permission, client_id, allow_all_scopes: true });
const both = ["read:it", "write:it"];
assert.deepEqual(await permitted(), [[{ ...permission, scope: both, source: "client_grant" }], false]);
await clientGrants.update(own.id, { allow_all_scopes: false });
assert.deepEqual(await permitted(), [[], true]);
await clients.delete(client_id);
await refused(clientGrants.get(own.id), 404);

// APIs: each verb, and the pager to its end.
for (const n of [1, 2, 3, 4]) await resourceServers.create({ identifier: `urn:${n}` });
const listed = await all(await resourceServers.list({ per_page: 2, include_totals: true }));
assert.deepEqual(listed.map((one) => one.identifier), ["https://api.example/", "urn:1", "urn:2", "urn:3", "urn:4"]);
assert.deepEqual(await resourceServers.get(api.id), api);
const changed = await resourceServers.update(api.id, {
  scopes: scopes.slice(1), subject_type_authorization: { user: { policy: "deny_all" }, client: { policy: "deny_all" } },
});
assert.deepEqual([changed.scopes, changed.subject_type_authorization.user.policy], [scopes.slice(1), "deny_all"]);
const some = await all(await resourceServers.list({ identifiers: ["urn:1", "urn:3"] }));
assert.deepEqual(some.map((one) => one.identifier), ["urn:1", "urn:3"]);
await refused(resourceServers.create({ identifier: "urn:1" }), 409);
await resourceServers.delete(listed[1].id);
await refused(resourceServers.get(listed[1].id), 404);

// Connections and grants come by checkpoints.
for (const n of [1, 2, 3, 4]) await connections.create({ name: `c${n}`, strategy: "sms", options: { n } });
const names = (await all(await connections.list({ take: 2 }))).map((one) => one.name);
assert.deepEqual(names, ["users", "c1", "c2", "c3", "c4"]);
const sms = await all(await connections.list({ strategy: ["sms"], fields: "name", include_fields: true }));
assert.deepEqual(sms[0], { name: "c1" });
assert.equal((await connections.get(connection.id)).name, "users");
await connections.delete(connection.id);
await refused(connections.get(connection.id), 404);

for (const n of [2, 3, 4]) {
  await clientGrants.create({ default_for: "third_party_clients", audience: `urn:${n}`, subject_type: "user", allow_all_scopes: true });
}
const grants = await all(await clientGrants.list({ take: 1 }));
assert.deepEqual(grants.map((one) => one.audience), ["https://api.example/", "urn:2", "urn:3", "urn:4"]);
assert.deepEqual(await clientGrants.get(grant.id), grants[0]);
const one = await all(await clientGrants.list({ audience: "urn:3", default_for: "third_party_clients", subject_type: "user" }));
assert.deepEqual(one, [grants[2]]);
const updated = await clientGrants.update(grant.id, { scope: ["write:it"] });
assert.deepEqual([updated.scope, updated.allow_all_scopes], [["write:it"], false]);
await refused(clientGrants.create({ default_for: "third_party_clients", audience: `https://${domain.split(":")[0]}/api/v2/`, subject_type: "user" }), 400);
await clientGrants.delete(grant.id);
await refused(clientGrants.get(grant.id), 404);
