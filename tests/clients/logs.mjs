// Registers clients and reads the log by the SDK, with 20 refusals from before in it: node logs.mjs PACKAGES DOMAIN TOKEN
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [packages, domain, token] = process.argv.slice(2);
const { ManagementClient, ManagementError } = createRequire(`${packages}/`)("auth0");
const { logs, tenants } = new ManagementClient({ domain, token, maxRetries: 0 });

await tenants.settings.update({
  flags: { enable_dynamic_client_registration: true },
  dcr_edge: { rate_limit: { burst: 100, per_second: 100 } },
});
const register = async (client_name) =>
  fetch(`https://${domain}/oidc/register`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": "logs.mjs" },
    body: JSON.stringify({ client_name, redirect_uris: ["https://app.example/cb"], token_endpoint_auth_method: "none" }),
  });
// The edges have the settings within two seconds.
let first = await register("first");
for (const started = Date.now(); first.status !== 201 && Date.now() - started < 2000; ) first = await register("first");
assert.equal(first.status, 201);
const { client_id } = await first.json();
for (const name of ["second", "third", "fourth", "fifth"]) assert.equal((await register(name)).status, 201);

const all = async (page) => {
  const items = [];
  for await (const item of page) items.push(item);
  return items;
};
const search = 'type:sapi AND description:"Dynamic client registration"';
const events = await all(await logs.list({ search, per_page: 2, include_totals: true }));
assert.deepEqual(events.map((event) => event.client_name), ["fifth", "fourth", "third", "second", "first"]);
const [event] = events.slice(-1);
assert.deepEqual([event.client_id, event.user_agent, event.ip, event.hostname], [client_id, "logs.mjs", "127.0.0.1", "localhost"]);
assert.deepEqual(event.details.redirect_hosts, ["app.example"]);
assert.ok(Math.abs(Date.now() - new Date(event.date)) < 60_000, event.date);
assert.deepEqual(await logs.get(event.log_id), event);
const oldest = await all(await logs.list({ search: "client_name:f*", sort: "date:1", fields: "client_name", include_fields: true }));
assert.deepEqual(oldest, ["first", "fourth", "fifth"].map((client_name) => ({ client_name })));
const refusals = async (search) => all(await logs.list({ search, per_page: 1, include_totals: true }));
const failed = await refusals('type:fapi AND description:"Failed dynamic client registration"');
const limited = await refusals("type:api_limit");
const sum = (events, reason) => events.reduce((total, { details }) => total + (details.reasons[reason] ?? 0), 0);
const [off, over] = [sum(failed, "registration_disabled"), sum(limited, "rate_limited")];
assert.ok(off >= 5 && over > 0 && off + over === 20, JSON.stringify([failed, limited]));
for (const { details } of [...failed, ...limited]) {
  assert.ok(details.count > 0 && new Date(details.until) - new Date(details.since) === 60_000, JSON.stringify(details));
}
await assert.rejects(logs.get("1000000"), (error) => error instanceof ManagementError && error.statusCode === 404);
