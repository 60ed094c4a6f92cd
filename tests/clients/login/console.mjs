// A tenant's owner uses the console with a browser: node console.mjs GATEWAY CHROMIUM CONSOLE LINK FEW
//
// CONSOLE is the store's own address, LINK signs in once, FEW is a token that may only read clients. With SCREENSHOTS set
// to a folder, each page is left there as a picture.
import assert from 'node:assert/strict';
import http from 'node:http';

import axe from 'axe-core';
import { chromium } from 'playwright-core';

const [gateway, executablePath, store, link, few] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
const complaints = [];
const foreign = [];
let pictures = 0;

/** A window of its own, of which nothing may be loaded from elsewhere. */
async function open(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(`${page.url()}: ${message.text()}`));
  page.on('request', (request) => new URL(request.url()).origin === store || foreign.push(request.url()));
  return page;
}

/** Holds a page to what axe knows of accessibility, in light and in dark. */
async function check(page, name) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    // The page's own policy lets no other script in, so this one comes by the debugger.
    const { violations } = await page.evaluate(`${axe.source}; axe.run(document, { resultTypes: ['violations'] })`);
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' | ')}`);
    assert.deepEqual(found, [], `${name} in ${colorScheme}`);
    if (process.env.SCREENSHOTS) {
      pictures += 1;
      const path = `${process.env.SCREENSHOTS}/${String(pictures).padStart(2, '0')}-${name}-${colorScheme}.png`;
      await page.screenshot({ path, fullPage: true });
    }
  }
}

const said = (page, text) => page.getByRole('status').filter({ hasText: text }).first().waitFor();
const go = (page, name) => page.getByRole('navigation', { name: 'Console' }).getByRole('link', { name }).click();

try {
  // Whoever is not signed in sees the page to sign in, and a wrong token does not open it.
  const page = await open({ viewport: { width: 1280, height: 900 } });
  await page.goto(`${store}/console/applications`);
  assert.equal(new URL(page.url()).pathname, '/console/sign-in');
  await page.getByLabel('Management API token').fill('wrong');
  const [refused] = await Promise.all([page.waitForResponse(/sign-in/), page.getByRole('button', { name: 'Sign in' }).click()]);
  assert.equal(refused.status(), 401);
  complaints.splice(0);
  assert.match(await page.getByRole('alert').textContent(), /not accepted/);
  await check(page, 'sign-in');

  // A link signs in once. Looking at it uses nothing up.
  await page.goto(link);
  await page.goto(link);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  const [cookie] = (await page.context().cookies(`${store}/console/`)).filter(({ name }) => name === 'dcr_console');
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path, cookie.expires], [true, 'Strict', '/console/', -1]);
  assert.equal((await page.context().cookies(`${store}/api/v2/clients`)).length, 0);
  const second = await open();
  await second.goto(link);
  await second.getByRole('button', { name: 'Sign in' }).click();
  assert.match(await second.getByRole('alert').textContent(), /used already/);
  complaints.splice(0);
  await second.context().close();
  for (const text of ['no connection is promoted', 'none has default permissions', 'Registration is off', 'No application']) {
    assert.ok((await page.locator('main').innerText()).toLowerCase().includes(text.toLowerCase()), text);
  }
  await check(page, 'overview-empty');

  // Connections: one is added, and promoted.
  await go(page, 'Connections');
  await page.getByText('No connection is promoted to domain level').waitFor();
  await page.getByText('Add a connection').click();
  await page.getByLabel('Name').fill('not a name!');
  await page.getByLabel('Strategy').fill('auth0');
  await page.getByRole('button', { name: 'Add' }).click();
  assert.match(await page.getByRole('alert').first().textContent(), /name: /);
  complaints.splice(0);
  assert.equal(await page.getByLabel('Strategy').inputValue(), 'auth0', 'what was entered stays');
  await page.getByLabel('Name').fill('staff');
  await page.getByRole('button', { name: 'Add' }).click();
  await said(page, 'The connection is added');
  await page.getByRole('button', { name: 'Promote to domain level' }).click();
  await said(page, 'at domain level');
  assert.equal(await page.getByText('No connection is promoted').count(), 0);
  await check(page, 'connections');

  // APIs: one is added, and gets default permissions.
  await go(page, 'APIs');
  await page.getByText('Add an API').click();
  await page.getByLabel('Identifier').fill('https://notes.example/');
  await page.getByLabel('Name (optional)').fill('Notes');
  await page.getByLabel(/Scopes, one a line/).fill('read:notes Read notes\nwrite:notes');
  await check(page, 'apis-new');
  await page.getByRole('button', { name: 'Add' }).click();
  await said(page, 'The API is added');
  await page.getByLabel(/read:notes/).check();
  await page.getByRole('button', { name: 'Grant default permissions' }).click();
  await said(page, 'have these default permissions');
  assert.deepEqual([await page.getByLabel(/read:notes/).isChecked(), await page.getByLabel(/write:notes/).isChecked()], [true, false]);
  await page.getByLabel(/All scopes/).check();
  await page.getByRole('button', { name: 'Save default permissions' }).click();
  await said(page, 'are saved');
  await page.getByRole('button', { name: 'Remove default permissions' }).click();
  await said(page, 'are removed');
  await check(page, 'api');

  // Registration is switched on after the warning, which names what is missing; and not without the box ticked.
  await go(page, 'Settings');
  await check(page, 'settings-off');
  await page.getByRole('link', { name: 'Enable…' }).click();
  await page.getByText('anyone will be able to create applications in your tenant without a token').waitFor();
  await page.getByText('No API has default permissions').waitFor();
  assert.equal(await page.getByText('No connection is promoted').count(), 0);
  await check(page, 'enable');
  await page.getByRole('button', { name: 'Enable registration' }).click();
  assert.ok(await page.getByLabel(/I understand/).evaluate((box) => box.matches(':invalid')));
  await page.getByLabel(/I understand/).check();
  await page.getByRole('button', { name: 'Enable registration' }).click();
  await said(page, 'Dynamic Client Registration is on');
  await page.getByRole('alert').filter({ hasText: 'They can reach no API' }).waitFor();
  await page.reload();
  assert.equal(await page.getByRole('status').count(), 0, 'it is said once');
  await check(page, 'settings-on');

  // Limits: what is wrong is told, and what was entered stays.
  await page.getByLabel('Each second', { exact: true }).first().fill('0');
  await page.getByRole('button', { name: 'Save limits' }).click();
  assert.match(await page.getByRole('alert').first().textContent(), /dcr_edge\.rate_limit\.per_second/);
  complaints.splice(0);
  assert.equal(await page.getByLabel('Each second', { exact: true }).first().inputValue(), '0');
  await page.getByLabel('At once', { exact: true }).first().fill('50');
  await page.getByLabel('Each second', { exact: true }).first().fill('50');
  await page.getByLabel(/Most applications/).fill('500');
  await page.getByRole('button', { name: 'Save limits' }).click();
  await said(page, 'The limits are saved');

  // Applications register themselves at the gateway, and are here.
  const register = async (more) => {
    for (const started = Date.now(); ; ) {
      const response = await fetch(`${gateway}/oidc/register`, {
        method: 'POST', headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ redirect_uris: ['https://a.example/cb'], ...more }),
      });
      if (response.status === 201) return response.json();
      assert.ok(Date.now() - started < 5000, `${response.status} ${await response.text()}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const evil = await register({ client_name: '<img src=x onerror=alert(1)> & "Co"', token_endpoint_auth_method: 'none' });
  const secretive = await register({ client_name: 'Secretive', token_endpoint_auth_method: 'client_secret_post' });
  await go(page, 'Applications');
  await page.getByRole('link', { name: '<img src=x onerror=alert(1)> & "Co"' }).waitFor();
  await check(page, 'applications');
  await page.getByLabel(/part of the name/).fill('SECRET');
  await page.getByRole('button', { name: 'Search' }).click();
  assert.equal(await page.getByRole('row').count(), 2, 'the head and one');
  await page.getByRole('link', { name: 'Secretive' }).click();
  await page.getByText('It can reach no API').waitFor();
  await check(page, 'application');
  await page.getByRole('link', { name: 'Rotate secret…' }).click();
  await page.getByRole('button', { name: 'Rotate it' }).click();
  await page.getByRole('heading', { name: 'The new secret' }).waitFor();
  const rotated = await page.locator('#secret').textContent();
  assert.ok(rotated.length >= 64 && rotated !== secretive.client_secret);
  await check(page, 'secret');
  await go(page, 'Applications');
  await page.getByRole('link', { name: /onerror/ }).click();
  assert.equal(await page.getByRole('link', { name: 'Rotate secret…' }).count(), 0, 'a public client has none');
  await page.getByRole('link', { name: 'Delete…' }).click();
  await check(page, 'delete');
  await page.getByRole('button', { name: 'Delete it' }).click();
  await said(page, `${evil.client_id} is deleted`);
  assert.equal(await page.getByText(evil.client_id, { exact: true }).count(), 0);

  // The access control list: rules are written, put in order, tried and counted.
  await go(page, 'Access control list');
  const add = async (description, fill) => {
    await page.getByRole('link', { name: 'Add a rule' }).click();
    await page.getByLabel('Description').fill(description);
    await fill();
    await page.getByRole('button', { name: 'Add the rule' }).click();
  };
  await add('Block a country', async () => {
    assert.equal(await page.getByLabel('Redirect to').isVisible(), false);
    await page.getByRole('group', { name: 'Matches' }).getByLabel('country', { exact: true }).fill('Switzerland');
    await check(page, 'rule');
  });
  assert.match(await page.getByRole('alert').first().textContent(), /^\s*rule\.match\.geo_country_codes.*such as CH$/);
  complaints.splice(0);
  await page.getByRole('group', { name: 'Matches' }).getByLabel('country', { exact: true }).fill('CH\nLI');
  await page.getByLabel('Monitoring only').uncheck();
  await page.getByRole('button', { name: 'Add the rule' }).click();
  await said(page, 'The rule is added');
  await add('Watch curl', async () => {
    await page.getByRole('group', { name: 'Matches' }).getByLabel('user agent').fill('curl/*');
  });
  await add('Send others away', async () => {
    await page.getByLabel('What becomes of a match').selectOption('redirect');
    await page.getByLabel('Redirect to').fill('https://elsewhere.example/');
    await page.getByLabel('Anybody').check();
    await page.getByLabel('Active', { exact: true }).uncheck();
  });
  const order = async () => (await page.locator('.rule h2').allTextContents());
  assert.deepEqual(await order(), ['Block a country', 'Watch curl', 'Send others away']);
  await check(page, 'rules');
  const rule = (name) => page.locator('.rule').filter({ hasText: name });
  const moves = async (move, expected) => {
    await Promise.all([page.waitForResponse(/access-control\/order/), move()]);
    await page.waitForLoadState();
    await said(page, 'in the order that you see');
    assert.deepEqual(await order(), expected);
  };
  await moves(() => rule('Watch curl').getByRole('button', { name: 'Up' }).click(), ['Watch curl', 'Block a country', 'Send others away']);
  // The focus stays with the rule.
  await page.waitForFunction(() => document.activeElement.closest('.rule')?.querySelector('h2').textContent === 'Watch curl');
  await moves(async () => {
    await rule('Watch curl').getByRole('button', { name: 'Down' }).focus();
    await page.keyboard.press('Alt+ArrowDown');
  }, ['Block a country', 'Watch curl', 'Send others away']);
  await moves(
    () => rule('Send others away').dragTo(rule('Block a country'), { sourcePosition: { x: 8, y: 8 }, targetPosition: { x: 8, y: 4 } }),
    ['Send others away', 'Block a country', 'Watch curl'],
  );
  await page.reload();
  assert.deepEqual(await order(), ['Send others away', 'Block a country', 'Watch curl'], 'the store has it');
  await page.getByRole('link', { name: 'Which rule would match?' }).click();
  await page.getByLabel('Country').fill('CH');
  await page.getByRole('button', { name: 'Try it' }).click();
  assert.match(await page.locator('#verdict').textContent(), /is blocked/);
  await check(page, 'try');
  await page.getByLabel('Country').fill('DE');
  await page.getByLabel('User agent').fill('curl/8.0');
  await page.getByRole('button', { name: 'Try it' }).click();
  assert.match(await page.locator('#verdict').textContent(), /passes/);
  await page.getByText('matches and is counted').waitFor();
  await page.getByLabel('Client address').fill('x');
  await page.getByRole('button', { name: 'Try it' }).click();
  assert.match(await page.getByRole('alert').first().textContent(), /not an IP address/);
  complaints.splice(0);
  await go(page, 'Access control list');
  await rule('Send others away').getByRole('button', { name: 'Activate' }).click();
  await said(page, 'The rule is active');
  await rule('Send others away').getByRole('link', { name: 'Edit' }).click();
  assert.equal(await page.getByLabel('Redirect to').inputValue(), 'https://elsewhere.example/');
  assert.ok(await page.getByLabel('Anybody').isChecked());
  await page.getByLabel('Description').fill('Send nobody away');
  await page.getByRole('button', { name: 'Save the rule' }).click();
  await said(page, 'The rule is saved');
  await rule('Send nobody away').getByRole('link', { name: 'Delete…' }).click();
  await page.getByRole('button', { name: 'Delete it' }).click();
  await said(page, 'The rule is deleted');
  assert.deepEqual(await order(), ['Block a country', 'Watch curl']);

  // The log, with filters.
  await go(page, 'Logs');
  await page.getByRole('cell', { name: /Secretive/ }).waitFor();
  await check(page, 'logs');
  await page.getByLabel('Search').fill('client_name:secretive');
  await page.getByLabel('Type').selectOption('sapi');
  const today = new Date().toISOString().slice(0, 10);
  await page.getByLabel('From').fill(today);
  await page.getByLabel('To').fill(today);
  await page.getByRole('button', { name: 'Show' }).click();
  assert.equal(await page.getByRole('row').count(), 2);
  await page.getByLabel('Search').fill('client_name:[');
  await page.getByRole('button', { name: 'Show' }).click();
  assert.match(await page.getByRole('alert').first().textContent(), /Search: /);
  complaints.splice(0);
  await page.goto(`${store}/console/?period=week`);
  assert.equal(await page.locator('.chart.registered strong').textContent(), '2');
  await check(page, 'overview');
  await page.setViewportSize({ width: 400, height: 800 });
  await check(page, 'overview-narrow');
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing is cut off');
  await page.setViewportSize({ width: 1280, height: 900 });

  // Everything works without scripts and by keyboard alone, too.
  const plain = await open({ javaScriptEnabled: false, storageState: await page.context().storageState() });
  await plain.goto(`${store}/console/access-control`);
  await plain.locator('.rule').last().getByRole('button', { name: 'Up' }).click();
  assert.deepEqual(await plain.locator('.rule h2').allTextContents(), ['Watch curl', 'Block a country']);
  await plain.context().close();
  await page.goto(`${store}/console/`);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');

  // Pages of others cannot do anything in the owner's name: neither with the cookie, nor in a frame.
  const attack = (action, fields) => `<!doctype html><title>Evil</title><form method="post" action="${action}">
    ${Object.entries(fields).map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`).join('')}
    <button>Win</button></form><iframe src="${store}/console/settings"></iframe>`;
  const evilSite = http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' });
    response.end(attack(`${store}/console/settings/registration`, { enable: 'false', csrf: 'x' }));
  });
  await new Promise((resolve) => evilSite.listen(0, '127.0.0.1', resolve));
  const victim = await page.context().newPage();
  // Another port of the same host: the same site, so the cookie goes along.
  await victim.goto(`http://127.0.0.1:${evilSite.address().port}/`);
  assert.match(victim.frames()[1].url(), /^chrome-error:/, 'no page of the console in a frame');
  const [answer] = await Promise.all([victim.waitForResponse(/settings\/registration/), victim.getByRole('button', { name: 'Win' }).click()]);
  assert.equal(answer.status(), 403);
  assert.match(await victim.getByRole('alert').textContent(), /another origin/);
  evilSite.close();
  evilSite.closeAllConnections();
  await victim.close();
  // Not even from here without what the session's own pages have in their forms.
  const forged = await page.evaluate(async () => {
    const body = new URLSearchParams({ enable: 'false', csrf: 'AAAA' });
    return (await fetch('/console/settings/registration', { method: 'POST', body })).status;
  }).catch(() => 'refused by the policy');
  assert.ok([403, 'refused by the policy'].includes(forged), `${forged}`);
  complaints.splice(0);
  await page.goto(`${store}/console/settings`);
  await page.getByText('Disable…').waitFor();

  // A token that allows little shows little, and does nothing else.
  const reader = await open();
  await reader.goto(`${store}/console/sign-in`);
  await reader.getByLabel('Management API token').fill(few);
  await reader.getByRole('button', { name: 'Sign in' }).click();
  await go(reader, 'Applications');
  await reader.getByRole('link', { name: 'Secretive' }).click();
  await reader.getByText('What it may do').waitFor();
  assert.equal(await reader.getByRole('link', { name: /Delete|Rotate/ }).count(), 0);
  for (const path of ['logs', 'settings', 'apis', 'connections', 'access-control', `applications/${secretive.client_id}/delete`]) {
    const response = await reader.goto(`${store}/console/${path}`);
    assert.equal(response.status(), 403, path);
    assert.match(await reader.getByRole('alert').textContent(), /lacks the scope/);
  }
  complaints.splice(0);

  // Whoever signs out is out, with whatever page is still open.
  const left = await page.context().newPage();
  await left.goto(`${store}/console/connections`);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await left.getByRole('button', { name: 'Demote' }).click();
  await left.getByRole('heading', { name: 'Sign in' }).waitFor();
  assert.deepEqual(complaints, []);
  assert.deepEqual(foreign, []);
} finally {
  await browser.close();
}
