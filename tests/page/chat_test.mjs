/* The conversation: sending, streaming, stopping, what is asked of the server, what a model may say. */
import assert from 'node:assert/strict';
import {answered, ask, test, withMock} from './harness.mjs';

async function streams(page, mock) {
  const lengths = [];
  await page.exposeFunction('seen', length => lengths.push(length));
  await page.evaluate(() => new MutationObserver(() => window.seen(document.querySelector('.words')?.textContent.length ?? 0))
    .observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true}));
  await ask(page, 'How does a prism split light?');
  const text = await page.textContent('.words');
  assert.match(text, /^A prism bends each colour[^]*all along\.$/);
  assert.equal(await page.textContent('.words strong'), 'fan');
  assert.equal(await page.locator('.words p').count(), 2);
  assert.ok(new Set(lengths.filter(n => n > 0 && n < text.length)).size > 3, `grew by ${lengths}`);
  const [asked] = mock.asked;
  assert.equal(asked.path, '/v1/chat/completions');
  assert.deepEqual(asked.messages, [{role: 'user', content: 'How does a prism split light?'}]);
  assert.deepEqual(asked.moeprism, {min_point: 8});
  assert.deepEqual([asked.stream, asked.stream_options, asked.temperature, asked.max_tokens, asked.model],
    [true, {include_usage: true, continuous_usage_stats: true}, 0.7, 256, 'demo-olmoe-prism']);
}

/* The lines of each entry of the last answer's account. */
const entriesOf = page => page.$$eval('.turn:last-child .account > div', nodes => nodes.map(node =>
  node.innerText.replaceAll('\u00a0', ' ').split('\n')));

async function account(page) {
  await ask(page, 'hello');
  const entries = await entriesOf(page);
  assert.deepEqual(entries.map(([name]) => name),
    ['Experts used', 'Perplexity', 'Expert compute', 'Speed', 'First token', 'Length']);
  const text = entries.map(([, ...rest]) => rest.join(' | '));
  assert.equal(text[0], '3.86 of 8 | promised at least 1.94');
  assert.equal(text[1], '+0.2 % | promised at most +1.3 %');
  assert.equal(text[2], '48.2 % | and 8.3 % for the gate');
  assert.match(text[3], /^337 tokens\/s \| 3 ms a token$/);
  assert.equal(text[4], '26.8 ms | 12 ms of it in the queue');
  assert.match(text[5], /^\d+ tokens \| 21 prompt tokens, 16 of them cached$/);
  assert.equal(await page.locator('.gauge .cell').count(), 8);
  assert.equal(await page.locator('.gauge .fill').count(), 4);
}

async function stops(page, mock) {
  await page.fill('#prompt', 'long please');
  await page.click('#send');
  await page.waitForSelector('.answer[data-state=streaming]');
  assert.ok(await page.isHidden('#send'));
  await page.click('#stop');
  await page.waitForSelector('.answer[data-state=stopped]');
  assert.match(await page.textContent('.after'), /You stopped/);
  assert.match(await page.textContent('.words'), /^A prism/);
  assert.ok(await page.isVisible('#send'));
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  while (mock.left === 0) await new Promise(resolve => setTimeout(resolve, 10)); /* the connection is closed */
  await ask(page, 'and now?');
  assert.deepEqual(mock.asked[1].messages.map(message => message.role), ['user', 'assistant', 'user']);
}

/* Stopped after `words` words at least: the account is of what had come, and of no more. */
async function stoppedAccount(page) {
  const words = 20;
  await page.fill('#prompt', 'long please');
  await page.press('#prompt', 'Enter');
  await page.waitForFunction(n => document.querySelector('.words')?.textContent.split(' ').length > n, words);
  await page.keyboard.press('Escape');
  await page.waitForSelector('.answer[data-state=stopped]');
  assert.match(await page.innerText('.after'), /^You stopped this answer\.\s+What it had used by then:/);
  const entries = await entriesOf(page);
  assert.deepEqual(entries.map(([name]) => name),
    ['Experts used', 'Perplexity', 'Expert compute', 'Speed', 'First token', 'Length']);
  assert.deepEqual(entries[0].slice(1), ['3.86 of 8', 'promised at least 1.94']);
  const told = Number.parseInt(entries[5][1], 10);
  const come = (await page.textContent('.words')).match(/\S+/g).length;
  assert.ok(told >= words && Math.abs(told - come) <= 2, `${told} tokens told, ${come} words came`);
  await page.fill('#prompt', 'long again');
  await page.press('#prompt', 'Enter');
  await page.keyboard.press('Escape'); /* before the first token there is nothing to account for */
  await page.waitForSelector('.turn:last-child .answer[data-state=stopped]');
  assert.equal(await page.locator('.turn:last-child .account').count(), 0);
}

async function history(page, mock) {
  await page.click('.settings summary');
  await page.fill('#system', ' Be brief. ');
  await page.fill('#temperature', '0');
  await page.fill('#max-tokens', '5');
  await ask(page, 'one');
  assert.match(await page.textContent('.after'), /Cut off at the most tokens/);
  await ask(page, 'two');
  assert.deepEqual(mock.asked[1].messages.map(({role, content}) => `${role}: ${content.trim()}`),
    ['system: Be brief.', 'user: one', 'assistant: A prism bends each colour', 'user: two']);
  assert.deepEqual([mock.asked[1].temperature, mock.asked[1].max_tokens], [0, 5]);
  await page.click('#clear');
  assert.equal(await page.locator('.turn').count(), 0);
  await ask(page, 'three');
  assert.equal(mock.asked[2].messages.length, 2);
}

async function continues(page, mock) {
  assert.match(await page.textContent('#welcome-text'), /continues the text/);
  assert.ok(await page.isHidden('#system'));
  await page.click('.examples button');
  await page.press('#prompt', 'Enter');
  await answered(page);
  await ask(page, 'It was');
  assert.deepEqual(mock.asked.map(({path, prompt}) => [path, prompt]),
    [['/v1/completions', 'Once upon a time, there was a'], ['/v1/completions', 'It was']]);
  assert.match(await page.textContent('.words'), /^A prism bends/);
}

async function staysText(page) {
  await ask(page, 'markup');
  assert.match(await page.textContent('.words'), /Never <img src=x onerror="window.hacked=1"> <script>/);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.equal(await page.locator('.words img, .words script').count(), 0);
  assert.equal(await page.textContent('.words p code'), 'printf');
  assert.match(await page.textContent('.words pre[data-language=c]'), /^int main\(void\)\n\{\n {4}return printf/);
  assert.deepEqual(await page.$$eval('.words > *', nodes => nodes.map(node => node.tagName)), ['P', 'P', 'PRE', 'P']);
}

async function byKeyboard(page, mock) {
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.type || '');
  const tabTo = async (what, tries = 40) => {
    for (; tries > 0 && !(await focused()).includes(what); tries--) await page.keyboard.press('Tab');
    assert.ok((await focused()).includes(what), `Tab does not reach ${what}`);
  };
  assert.equal(await focused(), 'prompt');
  await page.keyboard.type('first line');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second, long');
  assert.equal(await page.inputValue('#prompt'), 'first line\nsecond, long');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.answer[data-state=streaming]');
  await page.keyboard.press('Escape');
  await page.waitForSelector('.answer[data-state=stopped]');
  assert.equal(mock.asked[0].messages[0].content, 'first line\nsecond, long');
  await tabTo('range');
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
  await page.keyboard.press('End');
  assert.equal(await page.textContent('.reading'), '8 of 8 experts');
  await page.keyboard.press('ArrowLeft');
  await tabTo('radio');
  await page.keyboard.press('ArrowDown');
  await tabTo('compare');
  await page.keyboard.press('Space');
  assert.ok(await page.isChecked('#compare'));
  await tabTo('prompt');
  await page.keyboard.type('both');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelectorAll('.answer[data-state=done]').length === 2);
  assert.deepEqual(mock.asked.slice(1).map(asked => asked.moeprism), [{point: 1}, {point: 0}]);
}

async function growing(page) {
  const box = () => page.evaluate(() => document.getElementById('prompt').offsetHeight);
  const before = await box();
  await page.fill('#prompt', 'a\nb\nc\nd');
  const four = await box();
  assert.ok(four > before + 40, `${before} to ${four}`);
  await page.fill('#prompt', 'line\n'.repeat(60));
  assert.ok(await box() < 250);
}

async function followsEnd(page) {
  const away = () => page.evaluate(() => {
    const talk = document.getElementById('talk');
    return talk.scrollHeight - talk.scrollTop - talk.clientHeight;
  });
  await page.fill('#prompt', 'long');
  await page.press('#prompt', 'Enter');
  await page.waitForFunction(() => document.getElementById('talk').scrollTop > 200);
  assert.ok(await away() < 60);
  await page.evaluate(() => { document.getElementById('talk').scrollTop = 0; });
  const height = await page.evaluate(() => document.getElementById('talk').scrollHeight);
  await page.waitForFunction(was => document.getElementById('talk').scrollHeight > was + 200, height);
  assert.equal(await page.evaluate(() => document.getElementById('talk').scrollTop), 0);
}

export async function chatTests(browser) {
  const run = (name, body, options, pageOptions) =>
    test(`chat: ${name}`, () => withMock(browser, options, pageOptions, body));
  await run('a message is sent, its answer grows as it comes', streams, {pace: 20});
  await run('each answer tells what it used and what was promised', account);
  await run('Stop ends the request, what had come stays and is remembered', stops);
  await run('a stopped answer tells what it had used by then', stoppedAccount, {pace: 40});
  await run('settings and what was said go along; a new conversation forgets', history);
  await run('a model without a chat template continues the text', continues, {props: {chat_template: null}});
  await run('what a model says stays text; code is set as code', staysText);
  await run('everything works with the keyboard alone', byKeyboard);
  await run('the field grows with the message, to a limit', growing);
  await run('the end stays in sight, unless the reader scrolls away', followsEnd, {},
    {viewport: {width: 800, height: 500}});
}
