/* What the browser tests share: TAP, the browser, a page that tells what it should not do.
 *
 * Environment: PAGE the folder of the page's files, CHART_JS the library, SHOTS where pictures go, CHROMIUM the browser. */
import assert from 'node:assert/strict';
import {chromium} from 'playwright-core';
import {Mock} from './mock.mjs';

let n = 0;

function skipped(name, why) {
  n += 1;
  console.log(`ok ${n} - ${name} # SKIP ${why}`);
}

/* Runs one test; an exception fails it. */
export async function test(name, body) {
  let failure = null;
  try {
    await body();
  } catch (error) {
    failure = error;
  }
  n += 1;
  console.log(`${failure ? 'not ok' : 'ok'} ${n} - ${name}`);
  if (failure) console.log(String(failure.stack ?? failure).replace(/^/gm, '# '));
}

test.skip = skipped;
export const plan = () => console.log(`1..${n}`);

export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

/* A page in a context of its own, at `url`. `page.faults` collects what must not happen: errors in the console (but for
 * the browser's own lines about statuses in `expected`), exceptions, requests to anyone but the server. */
export async function open(browser, url, {expected = [], ...options} = {}) {
  const context = await browser.newContext({viewport: {width: 1440, height: 900}, ...options});
  context.setDefaultTimeout(180000); /* not a limit on speed: a wait that would never end says which one it was */
  const page = await context.newPage();
  page.faults = [];
  page.on('console', message => {
    if (!['error', 'warning'].includes(message.type())) return;
    if (expected.some(status => message.text().includes(status))) return;
    page.faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', error => page.faults.push(`exception: ${error.stack}`));
  page.on('request', request => {
    if (!request.url().startsWith(url)) page.faults.push(`request to ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

export const ready = page => page.waitForSelector('body[data-ready=yes]');

/* Runs `body` with a page of this server (Loopback), which ends with it; nothing may have gone wrong that was not
 * expected. `locked`: the page cannot be ready, it needs a key. */
export async function withServer(browser, server, {locked = false, ...pageOptions} = {}, body) {
  await server.open();
  const page = await open(browser, server.url, pageOptions);
  try {
    if (!locked) await ready(page);
    await body(page, server);
    assert.deepEqual(page.faults, []);
  } finally {
    await page.context().close();
    await server.close();
  }
}

export const withMock = (browser, mockOptions, pageOptions, body) =>
  withServer(browser, new Mock(mockOptions), pageOptions, body);

export async function picture(page, name) {
  await page.screenshot({path: `${process.env.SHOTS}/${name}.png`});
}

/* Sends a message and waits for the end of its answers. */
export async function ask(page, text) {
  await page.fill('#prompt', text);
  await page.press('#prompt', 'Enter');
  await answered(page);
}

export const answered = page => page.waitForFunction(() => document.querySelector('.answer') &&
  !document.querySelector('.answer[aria-busy=true]') && document.getElementById('stop').hidden);
