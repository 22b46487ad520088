/* Charts, narrow screens, light and dark; with pictures to look at. */
import assert from 'node:assert/strict';
import {ask, open, picture, ready, test} from './harness.mjs';
import {Mock} from './mock.mjs';

const SIDEWAYS = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;

async function withPage(browser, mock, options, body) {
  const page = await open(browser, mock.url, options);
  try {
    await ready(page);
    await body(page);
    assert.deepEqual(page.faults, []);
  } finally {
    await page.context().close();
  }
}

/* Lets seconds pass as the page sees them, each with a look at the metrics. */
async function pass(page, seconds) {
  for (let i = 0; i < seconds; i++) {
    const looked = page.waitForResponse(response => response.url().endsWith('/metrics'));
    await page.clock.runFor(1000);
    await (await looked).finished();
  }
}

/* A page whose clock the test moves, of a server with two minutes of other people's load. */
async function busyPage(browser, mock, options, body) {
  mock.counters.busy = true;
  await withPage(browser, mock, options, async page => {
    await page.clock.install();
    await page.reload();
    await ready(page);
    await pass(page, 125);
    await body(page);
  });
  Object.assign(mock.counters, {busy: false, others: 0, waiting: 0});
}

const painted = (page, i) => page.locator('.canvas canvas').nth(i).evaluate(canvas => {
  const copy = Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height})
    .getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let k = 0; k < data.length; k += 4)
    if (data[k + 3] > 200) colours.add(`${data[k] >> 4},${data[k + 1] >> 4},${data[k + 2] >> 4}`);
  return colours.size;
});

async function charts(browser, mock) {
  await busyPage(browser, mock, {}, async page => {
    assert.equal(await page.locator('.plot').count(), 4);
    const legends = await page.$$eval('.legend', nodes => nodes.map(node => node.innerText.replaceAll('\u00a0', ' ')));
    assert.match(legends[0], /^\s*\d+ running\s+\d+ waiting$/);
    assert.match(legends[1], /^\s*[\d.]+ (ms|s) first token\s+[\d.]+ ms between tokens$/);
    assert.match(legends[2], /^\s*[\d.]+ of 8 experts, mean$/);
    assert.match(legends[3], /^\s*[\d.,]+ tokens\/s written\s+[\d.,]+ tokens\/s read$/);
    const rows = await page.evaluate(() => [...document.querySelectorAll('.canvas canvas')]
      .map(canvas => window.Chart.getChart(canvas).data.datasets.map(set => set.data.filter(p => p.y !== null).length)));
    for (const counts of rows) for (const n of counts) assert.ok(n > 100, `points: ${JSON.stringify(rows)}`);
    for (let i = 0; i < 4; i++) assert.ok(await painted(page, i) > 2);
    assert.match(await page.textContent('#state-text'), /running|idle/);
    await page.clock.resume();
    await ask(page, 'How does a prism split light?');
    await picture(page, 'charts-light');
  });
}

const luminance = (page, selector, property) => page.evaluate(([s, p]) => {
  const [r, g, b] = getComputedStyle(document.querySelector(s))[p].match(/[\d.]+/g).map(Number)
    .map(c => c / 255).map(c => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}, [selector, property]);

/* Sends a message and stops its answer in the middle. */
async function stop(page) {
  await page.fill('#prompt', 'long');
  await page.press('#prompt', 'Enter');
  await page.waitForFunction(() => document.querySelector('.turn:last-child .words').textContent.length > 200);
  await page.keyboard.press('Escape');
  await page.waitForSelector('.turn:last-child .answer[data-state=stopped] .account');
}

/* Colours follow the reader's choice, and text stands out from its ground by the accessibility guidelines' 4.5. */
async function schemes(browser, mock) {
  for (const colorScheme of ['light', 'dark']) {
    await withPage(browser, mock, {colorScheme}, async page => {
      await ask(page, 'How does a prism split light?');
      const ground = await luminance(page, 'body', 'backgroundColor');
      assert.ok(colorScheme === 'dark' ? ground < 0.05 : ground > 0.9, `${colorScheme}: ${ground}`);
      for (const selector of ['body', '.soft', '.account small', '.reading b', '.plain']) {
        const ink = await luminance(page, selector, 'color');
        const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
        assert.ok(contrast >= 4.5, `${colorScheme} ${selector}: contrast ${contrast.toFixed(2)}`);
      }
      await picture(page, `chat-${colorScheme}`);
      await stop(page);
      await picture(page, `stopped-${colorScheme}`);
      const before = await painted(page, 0);
      await page.emulateMedia({colorScheme: colorScheme === 'dark' ? 'light' : 'dark'});
      assert.ok(before > 0 && await painted(page, 0) > 0);
    });
  }
}

async function narrow(browser, mock) {
  for (const width of [320, 390]) {
    const options = {viewport: {width, height: 700}, isMobile: true, hasTouch: true};
    await withPage(browser, mock, options, async page => {
      await picture(page, `narrow-${width}-welcome`);
      await ask(page, 'markup, and a_word_without_a_single_space_in_it_that_is_wider_than_any_line_here');
      assert.equal(await page.evaluate(SIDEWAYS), 0);
      await picture(page, `narrow-${width}-chat`);
      await page.click('#choice');
      assert.ok(await page.isVisible('.dial'));
      assert.ok(await page.isHidden('#prompt'));
      await page.check('#compare');
      await page.click('.settings summary');
      assert.equal(await page.evaluate(SIDEWAYS), 0);
      await picture(page, `narrow-${width}-quality`);
      await page.click('nav [data-view=load]');
      assert.ok(await page.isVisible('.plot >> nth=3'));
      await page.waitForFunction(() => document.querySelectorAll('.canvas canvas')[3].width > 200); /* it was hidden */
      await page.waitForResponse(response => response.url().endsWith('/metrics'));
      assert.equal(await page.evaluate(SIDEWAYS), 0);
      await picture(page, `narrow-${width}-load`);
      await page.click('nav [data-view=chat]');
      await ask(page, 'both');
      assert.equal(await page.evaluate(SIDEWAYS), 0);
      assert.equal(await page.locator('.turn:last-child .answer').count(), 2);
    });
  }
}

async function widths(browser, mock) {
  for (const width of [600, 768, 1000, 1280, 1920]) {
    await withPage(browser, mock, {viewport: {width, height: 800}}, async page => {
      if (await page.isVisible('#compare')) await page.check('#compare'); /* out of sight on the narrowest */
      await ask(page, 'markup');
      assert.equal(await page.evaluate(SIDEWAYS), 0, `at ${width}`);
      await picture(page, `width-${width}`);
    });
  }
}

async function sideBySide(browser, mock) {
  await busyPage(browser, mock, {colorScheme: 'dark'}, async page => {
    await page.clock.resume();
    await page.check('#compare');
    await ask(page, 'How does a prism split light?');
    await picture(page, 'side-by-side-dark');
  });
}

async function calm(browser, mock) {
  await withPage(browser, mock, {reducedMotion: 'reduce'}, async page => {
    await page.fill('#prompt', 'long');
    await page.press('#prompt', 'Enter');
    await page.waitForSelector('.answer[data-state=streaming] .words p');
    const animation = await page.evaluate(() => getComputedStyle(document.querySelector('.words p:last-child'), '::after')
      .animationName);
    assert.equal(animation, 'none');
  });
}

/* Everything that can be used has a name, and the stream is told politely. */
async function named(browser, mock) {
  await withPage(browser, mock, {}, async page => {
    await page.check('#compare');
    await page.click('.settings summary');
    const nameless = await page.$$eval('button, input, textarea', nodes => nodes.filter(node =>
      !node.textContent.trim() && !node.labels?.length && !node.ariaLabel && node.id !== 'choice').map(node => node.outerHTML));
    assert.deepEqual(nameless, []);
    assert.equal(await page.getAttribute('#log', 'aria-live'), 'polite');
    await page.fill('#prompt', 'long');
    await page.press('#prompt', 'Enter');
    await page.waitForSelector('.answer[aria-busy=true]');
    assert.equal(await page.textContent('#told'), 'Answering.');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.getElementById('told').textContent === 'Stopped.');
  });
}

export async function lookTests(browser) {
  const mock = await new Mock().open();
  const run = (name, body) => test(`look: ${name}`, () => body(browser, mock));
  await run('charts are drawn from the metrics, their values stand beside them', charts);
  await run('light and dark, with enough contrast', schemes);
  await run('narrow screens show one part at a time, nothing scrolls sideways', narrow);
  await run('no width scrolls sideways', widths);
  await run('side by side in the dark', sideBySide);
  await run('nothing moves for those who ask for less motion', calm);
  await run('controls have names, the stream is told politely', named);
  await mock.close();
}
