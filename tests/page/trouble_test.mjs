/* What goes wrong is said kindly, in place, and can be tried again. */
import assert from 'node:assert/strict';
import {answered, ask, ready, test, withMock} from './harness.mjs';
import {Mock} from './mock.mjs';

async function busy(page, mock) {
  await ask(page, 'busy');
  assert.match(await page.textContent('.trouble'), /full right now.*wait about 3 s/);
  mock.complete = async (request, response, chat) => {
    mock.complete = Mock.prototype.complete;
    await mock.stream(response, {moeprism: {point: 0}}, '', chat);
  };
  await page.click('.trouble button');
  await page.waitForSelector('.answer[data-state=done]');
  assert.equal(await page.locator('.trouble').count(), 0);
}

async function refused(page, mock) {
  await ask(page, 'refuse');
  assert.match(await page.textContent('.trouble'), /9000 tokens, the context 4096/);
  await ask(page, 'next');
  assert.equal(mock.asked[1].messages.length, 1); /* what was refused does not come along */
}

async function breaks(page) {
  await ask(page, 'break');
  assert.match(await page.textContent('.trouble'), /connection broke off/);
  assert.match(await page.textContent('.words'), /^A prism bends/);
  assert.match(await page.innerText('.after'), /What it had used by then:[^]*\b\d+\stokens/);
}

async function midway(page) {
  await ask(page, 'midway');
  assert.match(await page.textContent('.trouble'), /out of pages/);
}

async function gone(page, mock) {
  const port = mock.port;
  await mock.close();
  await ask(page, 'anybody?');
  assert.match(await page.textContent('.trouble'), /cannot be reached/);
  await page.waitForSelector('#state[data-state=gone]');
  await new Promise(resolve => mock.server.listen(port, '127.0.0.1', resolve));
  await page.click('.trouble button');
  await page.waitForSelector('.answer[data-state=done]');
  await page.waitForSelector('#state[data-state=idle]');
}

async function keyAtStart(page) {
  await page.waitForSelector('#key-form:not([hidden])');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'key');
  await page.fill('#key', 'wrong');
  await page.press('#key', 'Enter');
  await page.waitForFunction(() => document.getElementById('key-why').textContent.includes('did not accept'));
  await page.waitForSelector('#key-form:not([hidden])');
  await page.fill('#key', 'sesame');
  await page.press('#key', 'Enter');
  await ready(page);
  await ask(page, 'hello');
  assert.equal(await page.locator('.answer[data-state=done]').count(), 1);
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length]), [1, 0]);
  await page.reload();
  await ready(page);
  await page.click('.settings summary');
  await page.click('#forget');
  await page.waitForSelector('#key-form:not([hidden])');
}

/* The key is changed while a page is open: the message waits for the new one. */
async function keyLater(page, mock) {
  mock.key = 'sesame';
  await page.fill('#prompt', 'hello');
  await page.press('#prompt', 'Enter');
  await page.waitForSelector('.trouble');
  await page.fill('#key', 'sesame');
  await page.press('#key', 'Enter');
  await page.waitForSelector('.answer[data-state=done]');
  await answered(page);
  assert.equal(mock.asked.length, 1);
}

export async function troubleTests(browser) {
  const run = (name, expected, body, options = {}) =>
    test(`trouble: ${name}`, () => withMock(browser, options, {expected, locked: Boolean(options.key)}, body));
  await run('a full server names the time to wait, and may be asked again', ['503'], busy);
  await run('a refusal is shown in the server\'s words', ['400'], refused);
  await run('a connection that breaks off keeps what had come', ['ERR_'], breaks);
  await run('an error inside the stream is shown', [], midway);
  await run('a server that is gone is waited for', ['ERR_'], gone);
  await run('a key is asked for, a wrong one refused, kept for the tab only', ['401'], keyAtStart, {key: 'sesame'});
  await run('a key that is needed later is asked for then', ['401'], keyLater);
}
