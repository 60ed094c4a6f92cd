// Drives /api/v2/network-acls by the SDK, as its documentation says: node network_acls.mjs PACKAGES DOMAIN TOKEN
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [packages, domain, token] = process.argv.slice(2);
const { ManagementClient, ManagementError } = createRequire(`${packages}/`)("auth0");
const { networkAcls } = new ManagementClient({ domain, token, maxRetries: 0 });

const rule = {
  action: { block: true },
  match: { geo_country_codes: ["CH"], ipv4_cidrs: ["198.51.100.7/24"] },
  scope: "dynamic_client_registration",
};
const normal = { ...rule, match: { ...rule.match, ipv4_cidrs: ["198.51.100.0/24"] } };
const body = { description: "first", active: true, priority: 2, rule };

// The SDK throws the answer to a creation away, so the list says what was made.
for (const description of ["first", "second", "third"]) {
  await networkAcls.create({ ...body, description });
}
const listed = [];
let page = await networkAcls.list({ page: 0, per_page: 2, include_totals: true });
assert.equal(page.response.total, 3);
for await (const acl of page) listed.push(acl);
assert.deepEqual(listed.map((acl) => acl.description), ["first", "second", "third"]);
const [{ id }] = listed;
assert.match(id, /^acl_[0-9A-Za-z]{22}$/);

const one = await networkAcls.get(id);
assert.deepEqual(one, listed[0]);
assert.deepEqual({ ...one, id: 0, created_at: 0, updated_at: 0 }, { ...body, rule: normal, id: 0, created_at: 0, updated_at: 0 });
assert.equal(new Date(one.created_at).toISOString(), one.created_at);

const monitored = await networkAcls.update(id, { rule: { action: { log: true } } });
assert.deepEqual(monitored.rule, { ...normal, action: { block: true, log: true } });
const other = { action: { allow: true }, match_all: true, scope: "tenant" };
const replaced = await networkAcls.set(id, { description: "replaced", active: false, rule: other });
assert.deepEqual([replaced.id, replaced.description, replaced.active, replaced.priority, replaced.rule], [id, "replaced", false, 2, other]);

const signals = {
  asns: [64500, 4294967295],
  geo_country_codes: ["CH"],
  geo_subdivision_codes: ["CH-ZH"],
  ipv4_cidrs: ["198.51.100.0/24", "203.0.113.7"],
  ipv6_cidrs: ["2001:db8::/32"],
  connecting_ipv4_cidrs: ["10.0.0.0/8"],
  connecting_ipv6_cidrs: ["fd00::/8"],
  ja3_fingerprints: ["773906b0efdefa24a7f2b8eb6985bf37"],
  ja4_fingerprints: ["t13d1516h2_8daaf6152771_02713d6af862"],
  hostnames: ["login.example.com"],
  user_agents: ["tool/1.0", "bad*"],
};
const actions = [
  { block: true },
  { allow: true },
  { log: true },
  { block: true, log: true },
  { redirect: true, redirect_uri: "https://www.example.com/blocked" },
];
const conditions = [{ match: signals }, { not_match: signals }, { match: signals, not_match: { asns: [7] } }, { match_all: true }];
for (const action of actions) {
  for (const condition of conditions) {
    for (const scope of ["authentication", "dynamic_client_registration", "management", "tenant"]) {
      const every = { action, ...condition, scope };
      const { rule: stored } = await networkAcls.set(id, { description: "every", active: false, rule: every });
      assert.deepEqual(stored, every);
    }
  }
}

const refused = async (call, status, text) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof ManagementError, error);
    assert.equal(error.statusCode, status);
    assert.match(error.message + JSON.stringify(error.body), text);
    return true;
  });
await refused(networkAcls.create({ ...body, rule: { ...rule, match: { ipv4_cidrs: ["::1"] } } }), 400, /rule\.match\.ipv4_cidrs/);
await refused(networkAcls.get("acl_0000000000000000000000"), 404, /acl/i);

for (const { id } of listed) await networkAcls.delete(id);
await networkAcls.delete(id);
page = await networkAcls.list({ include_totals: true });
assert.deepEqual(page.data, []);
