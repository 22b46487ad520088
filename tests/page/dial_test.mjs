/* The dial and side by side. */
import assert from 'node:assert/strict';
import {ask, test, withMock} from './harness.mjs';
import {ladder} from './mock.mjs';

const plain = text => text.replaceAll('\u00a0', ' ');
const texts = async (page, ...selectors) => Promise.all(selectors.map(async s => plain(await page.textContent(s))));

const slide = (page, value, dial = 'left') => page.locator(`.dial[data-name=${dial}] input[type=range]`)
  .fill(String(value));

async function values(page, mock) {
  assert.deepEqual(await texts(page, '.reading', '.share', '.loss', '.speed'),
    ['1.94 of 8 experts', '24.3 %', '+1.3 % perplexity', '59.3 tokens/s']);
  await slide(page, 0);
  assert.deepEqual(await texts(page, '.reading', '.share', '.loss', '.speed'),
    ['0.5 of 8 experts', '6.3 %', '+9.1 % perplexity', '75.5 tokens/s']);
  await slide(page, 14);
  assert.deepEqual(await texts(page, '.reading', '.share', '.loss'), ['8 of 8 experts', '100 %', 'none']);
  assert.match(await page.getAttribute('.dial input', 'aria-valuetext'), /^8 of 8 experts, 100.% of the expert compute/);
  await ask(page, 'at full');
  await page.click('.levels >> text=low');
  assert.equal(await page.inputValue('.dial input[type=range]'), '2');
  assert.equal(await page.getAttribute('.levels >> text=low', 'aria-pressed'), 'true');
  await page.check('.dial input[value=exact]');
  await ask(page, 'low');
  assert.deepEqual(mock.asked.map(asked => asked.moeprism), [{min_point: 0}, {point: 12}]);
  assert.match(await page.textContent('.turn:last-child .account'), /asked for 0\.98/);
}

async function dot(page) {
  const apart = async () => page.evaluate(() => {
    const dot = document.querySelector('.dot').getBoundingClientRect();
    const range = document.querySelector('.dial input').getBoundingClientRect();
    const at = document.querySelector('.dial input').value / document.querySelector('.dial input').max;
    const thumb = range.left + 9.6 + at * (range.width - 19.2); /* its width is 1.2rem */
    return Math.abs(dot.left + dot.width / 2 - thumb);
  });
  for (const value of [0, 5, 14]) {
    await slide(page, value);
    assert.ok(await apart() < 1.5, `the dot is ${await apart()} pixels from the thumb at ${value}`);
  }
}

async function sideBySide(page, mock) {
  await page.check('#compare');
  await slide(page, 3);
  await page.fill('#prompt', 'long, both');
  await page.press('#prompt', 'Enter');
  await page.waitForFunction(() => document.querySelectorAll('.answer[data-state=streaming]').length === 2);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.querySelectorAll('.answer[data-state=stopped]').length === 2);
  await ask(page, 'short');
  assert.equal(mock.asked.length, 4);
  const [left, right] = mock.asked.slice(2);
  assert.deepEqual([left.moeprism, right.moeprism], [{point: 11}, {point: 0}]);
  assert.equal(left.seed, right.seed);
  const boxes = await page.$$eval('.turn:last-child .answer', nodes => nodes.map(node => node.getBoundingClientRect().toJSON()));
  assert.equal(boxes[0].top, boxes[1].top);
  assert.ok(boxes[0].right < boxes[1].left);
  assert.deepEqual(await texts(page, '.turn:last-child .answer[data-name=left] .gauge + span',
    '.turn:last-child .answer[data-name=right] .gauge + span'), ['1.22 of 8', '8 of 8']);
  await page.uncheck('#compare');
  await ask(page, 'alone again');
  assert.deepEqual(mock.asked.at(-1).moeprism, {min_point: 11});
  assert.equal(await page.locator('.dial').count(), 1);
}

/* Columns go on with their own words. */
async function columns(page, mock) {
  await page.check('#compare');
  await page.click('.settings summary');
  await ask(page, 'markup');
  await page.fill('#max-tokens', '3');
  await ask(page, 'two');
  const [left, right] = mock.asked.slice(2);
  assert.equal(left.messages[1].content, right.messages[1].content);
  await ask(page, 'three');
  assert.equal(mock.asked[4].messages.length, 5);
  assert.equal(mock.asked[5].messages[3].content.trim(), 'A prism bends');
}

async function notMeasured(page) {
  assert.deepEqual(await texts(page, '.loss', '.speed'), ['not measured', 'not measured']);
  assert.equal(await page.locator('.curve').count(), 0);
  await ask(page, 'hello');
  assert.match(await page.textContent('.account'), /not measured/);
}

async function whole(page) {
  assert.match(await page.textContent('#welcome-text'), /not split/);
  assert.ok(await page.isDisabled('.dial input[type=range]'));
  assert.ok(await page.isDisabled('#compare'));
  await ask(page, 'hello');
  assert.match(await page.textContent('.account'), /8 of 8/);
}

export async function dialTests(browser) {
  const run = (name, body, props = {}) => test(`dial: ${name}`, () => withMock(browser, {props}, {}, body));
  await run('shows experts, compute, loss and speed, and asks for what it shows', values);
  await run('the dot on the curve stands over the thumb', dot);
  await run('side by side: one message at two points, two answers at once', sideBySide);
  await run('side by side: each column remembers its own answers', columns);
  await run('what is not measured is said so', notMeasured,
    {ladder: ladder.map(rung => ({...rung, ppl: null, ppl_increase: null, measured: false, tokens_per_s: null}))});
  await run('a model that is not split has one point', whole, {ladder: ladder.slice(0, 1), levels: {full: 0}, floor: 0});
}
