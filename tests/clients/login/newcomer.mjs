// From what make run prints to a registered client in the browser: node newcomer.mjs CHROMIUM LINK CALL
//
// CALL is the printed command that registers a client.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { chromium } from 'playwright-core';

const [executablePath, link, call] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(10_000);
  await page.goto(link);
  await page.getByRole('button', { name: 'Sign in' }).click();
  const open = page.getByRole('listitem').filter({ has: page.getByText('open', { exact: true }) });
  assert.equal(await open.count(), 4, 'all four steps are open');
  await page.getByRole('link', { name: 'Promote a connection' }).click();
  await page.getByText('Add a connection').click();
  await page.getByLabel('Name').fill('staff');
  await page.getByLabel('Strategy').fill('auth0');
  await page.getByLabel(/Promote it/).check();
  await page.getByRole('button', { name: 'Add' }).click();
  await page.getByRole('link', { name: 'Overview' }).click();
  await page.getByRole('link', { name: 'Choose an API' }).click();
  await page.getByText('Add an API').click();
  await page.getByLabel('Identifier').fill('https://notes.example');
  await page.getByLabel(/Scopes, one a line/).fill('read');
  await page.getByRole('button', { name: 'Add' }).click();
  await page.getByLabel(/All scopes/).check();
  await page.getByRole('button', { name: 'Grant default permissions' }).click();
  await page.getByRole('link', { name: 'Overview' }).click();
  await page.getByRole('link', { name: 'Switch it on' }).click();
  await page.getByRole('link', { name: 'Enable…' }).click();
  await page.getByLabel(/I understand/).check();
  await page.getByRole('button', { name: 'Enable registration' }).click();
  await page.getByRole('status').filter({ hasText: 'is on' }).waitFor();
  // The edge has it within two seconds.
  let answer = '';
  for (const started = Date.now(); !answer.includes(' 201 ') && Date.now() - started < 5000; ) {
    answer = execFileSync('sh', ['-c', call], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  }
  assert.match(answer, /^HTTP\/1\.1 201 /);
  const clientId = JSON.parse(answer.slice(answer.indexOf('{'))).client_id;
  await page.getByRole('link', { name: 'Overview' }).click();
  assert.equal(await open.count(), 0, 'nothing is open any more');
  await page.getByRole('navigation', { name: 'Console' }).getByRole('link', { name: 'Applications' }).click();
  await page.getByRole('link', { name: 'My Dynamic Application' }).click();
  await page.getByText(clientId, { exact: true }).waitFor();
  assert.equal(await page.getByRole('row').filter({ hasText: 'https://notes.example' }).filter({ hasText: 'read' }).count(), 1);
} finally {
  await browser.close();
}
