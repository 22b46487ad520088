/* One pass against the real server with the demo model: the page and the API fit each other. */
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {mkdtempSync, rmSync} from 'node:fs';
import {request as send} from 'node:http';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {ask, open, picture, ready, test, withServer} from './harness.mjs';
import {Loopback} from './mock.mjs';

/* Runs the program to its end; its standard output. */
function run(...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.env.MOEPRISM, args, {stdio: ['ignore', 'pipe', 'pipe']});
    let out = '', err = '';
    child.stdout.on('data', data => { out += data; });
    child.stderr.on('data', data => { err += data; });
    child.on('close', code => (code === 0 ? resolve(out) : reject(new Error(`${args[0]}: ${code}: ${err}`))));
  });
}

/* A server on a free port; its URL is in the line it says it is ready with. */
class Server {
  async open(...args) {
    this.child = spawn(process.env.MOEPRISM, ['serve', ...args], {stdio: ['ignore', 'pipe', 'pipe']});
    this.said = '';
    this.ended = new Promise(resolve => this.child.on('close', resolve));
    this.url = await new Promise((resolve, reject) => {
      const hear = data => {
        this.said += data;
        const url = /http:\/\/[\d.]+:\d+\/?/.exec(this.said)?.[0];
        if (url) resolve(url.endsWith('/') ? url : `${url}/`);
      };
      this.child.stdout.on('data', hear);
      this.child.stderr.on('data', hear);
      this.child.on('close', () => reject(new Error(`serve ended: ${this.said}`)));
    });
    return this;
  }

  async close() {
    this.child.kill('SIGTERM');
    return this.ended;
  }
}

/* Passes everything on to a server, but of an answer's stream only so many events: the rest waits until its reader goes,
 * so that an answer can be stopped however quick the server is. */
const holding = (target, events) => new Loopback((request, response) => {
  const passed = send(new URL(request.url, target), {method: request.method, headers: request.headers}, answer => {
    response.writeHead(answer.statusCode, answer.headers);
    if (!(answer.headers['content-type'] ?? '').startsWith('text/event-stream')) {
      answer.pipe(response);
      return;
    }
    let left = events;
    answer.setEncoding('utf8').on('data', text => {
      for (const event of text.split(/(?<=\n\n)/)) {
        if (left > 0) response.write(event);
        if (event.endsWith('\n\n')) left -= 1;
      }
    });
  });
  passed.on('error', error => response.destroy(error));
  response.on('close', () => passed.destroy());
  request.pipe(passed);
});

/* Every chart has seen values, and says the present ones. */
const chartsHaveData = page => page.waitForFunction(() => [...document.querySelectorAll('.canvas canvas')].every(canvas =>
  window.Chart.getChart(canvas).data.datasets.every(set => set.data.some(point => point.y !== null))));

async function onePass(page) {
  const props = await page.evaluate(() => fetch('/props').then(response => response.json()));
  assert.ok(props.ladder.length > 4);
  for (const field of ['point', 'experts', 'compute_share', 'gate_share', 'ppl', 'ppl_increase', 'measured', 'tokens_per_s'])
    assert.ok(field in props.ladder[1], field);
  await page.click('.settings summary');
  await page.fill('#max-tokens', '24');
  await page.locator('.dial input[type=range]').fill('1');
  await ask(page, 'Once upon a time');
  assert.ok((await page.textContent('.words')).trim().length > 10);
  const account = (await page.innerText('.account')).replaceAll('\u00a0', ' ');
  assert.match(account, new RegExp(`of ${props.n_experts_used}\\s+promised at least`));
  assert.match(account, /tokens\/s/);
  assert.match(account, /Length\s+\d+ tokens?\s+\d+ prompt tokens/);
}

async function twoPoints(page) {
  await page.check('#compare');
  await ask(page, 'The little boat');
  const used = await page.$$eval('.turn:last-child .gauge + span', nodes => nodes.map(node => Number.parseFloat(node.textContent)));
  assert.equal(used.length, 2);
  assert.ok(used[0] < used[1], `experts: ${used}`);
}

async function stops(page) {
  await page.click('.settings summary');
  await page.fill('#max-tokens', '200');
  await page.fill('#prompt', 'Tell a long story');
  await page.press('#prompt', 'Enter');
  await page.waitForFunction(() => document.querySelector('.turn:last-child .words').textContent.length > 20);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.getElementById('stop').hidden);
  const account = (await page.innerText('.turn:last-child .after')).replaceAll('\u00a0', ' ');
  assert.match(account, /You stopped this answer\.\s+What it had used by then:\s+Experts used\s+[\d.]+ of 8\s+promised/);
  assert.match(account, /[\d.]+ tokens\/s\s[^]*Length\s+\d+ tokens\s+\d+ prompt tokens/);
  await page.waitForSelector('#state[data-state=idle]'); /* the slot is free again */
}

export async function liveTests(browser) {
  const dir = mkdtempSync(join(tmpdir(), 'page-'));
  const model = join(dir, 'prism.gguf');
  const server = new Server();
  let page = null;
  await test('live: the demo model is split and served', async () => {
    await run('refactor', 'models/demo-olmoe-q8_0.gguf', '-o', model, '--calibration', 'models/calibration.txt',
      '--eval', 'models/heldout.txt', '--max-tokens', '512', '--eval-tokens', '512');
    await server.open(model, '--port', '0');
    page = await open(browser, server.url);
    await ready(page);
  });
  for (const [name, body] of [['a message, its answer and its account', onePass], ['side by side', twoPoints]])
    await test(`live: ${name}`, () => body(page));
  await test('live: stop frees the slot', () => withServer(browser, holding(server.url, 30), {}, stops));
  await test('live: charts get data from the metrics', async () => {
    await chartsHaveData(page);
    await picture(page, 'live');
    assert.deepEqual(page.faults, []);
  });
  await test('live: the server ends well', async () => assert.equal(await server.close(), 0));
  rmSync(dir, {recursive: true});
}
