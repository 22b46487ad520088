/* A server that speaks as `moeprism serve` does, for the tests of the page: slow streams, errors and load on demand.
 *
 * Words in the last message choose what happens: "busy" a 503, "long" an answer that goes on until it is stopped, "break" a
 * connection that breaks off, "refuse" a 400, "midway" an error inside the stream, "markup" text that looks like HTML
 * and code. What was asked is kept in `asked`. The page's files come from the source tree, under the policy that the
 * server sends. */
import {readFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {join} from 'node:path';
import {Counters} from './mock_metrics.mjs';

const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SHARES = [1, 0.835, 0.718, 0.6, 0.482, 0.423, 0.363, 0.303, 0.243, 0.213, 0.183, 0.153, 0.123, 0.0925, 0.0625];
const LOSSES = [0, 0, 0.0002, 0.0011, 0.0023, 0.0036, 0.0049, 0.0083, 0.0127, 0.0167, 0.0213, 0.0271, 0.0377, 0.0557,
  0.091];

export const ladder = SHARES.map((share, point) => ({
  point, experts: Math.round(share * 800) / 100, compute_share: share, gate_share: point > 0 ? 0.083 : 0, ppl: 52.82 * (1 + LOSSES[point]),
  ppl_increase: LOSSES[point], measured: true, tokens_per_s: 1 / (0.012 + 0.02 * share),
}));

export const defaults = {
  model: 'demo-olmoe-prism', architecture: 'olmoe', version: '0.1.0', n_ctx: 4096, slots: 8, policy: 'elastic',
  n_experts_used: 8, n_vocab: 4096, chat_template: 'chatml', ladder, levels: {low: 12, medium: 8, high: 4, full: 0},
  floor: 8, kv_pages: 256,
};

const TYPES = {html: 'text/html; charset=utf-8', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml'};
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

const ANSWER = 'A prism bends each colour of light by a slightly different angle, because glass slows blue light more than ' +
  'red. White light goes in as one beam and comes out as a **fan**: red turns least, violet most.\n\nA second prism, ' +
  'turned around, gathers the fan into white again, which is how Newton showed that the colours were in the light all ' +
  'along.';
const MARKUP = 'Never <img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> run.\n\nUse `printf`:\n\n' +
  '```c\nint main(void)\n{\n    return printf("a line that is long enough to need a scroll bar on any small screen, surely\\n");\n}\n```\n\nDone.';

function page(path) {
  const file = path === '/' ? 'index.html' : path.slice(1);
  const from = file === 'chart.js' ? process.env.CHART_JS : join(process.env.PAGE, file);
  return {data: readFileSync(from), type: TYPES[file.split('.').pop()]};
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}

/* A server of our own on a free port, answering by `answer`. */
export class Loopback {
  constructor(answer) {
    this.server = createServer(answer);
  }

  async open() {
    await new Promise(resolve => this.server.listen(0, '127.0.0.1', resolve));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}/`;
    return this;
  }

  close() {
    this.server.closeAllConnections();
    return new Promise(resolve => this.server.close(resolve));
  }
}

export class Mock extends Loopback {
  /* {props, key, pace: milliseconds a token} */
  constructor({props = {}, key = null, pace = 4} = {}) {
    super((request, response) => {
      this.serve(request, response).catch(error => response.destroy(error));
    });
    this.props = {...defaults, ...props};
    Object.assign(this, {key, pace, asked: [], left: 0, counters: new Counters(this.props.ladder)});
  }

  json(response, status, value, headers = {}) {
    response.writeHead(status, {'content-type': 'application/json', ...headers});
    response.end(JSON.stringify(value));
  }

  error(response, status, message, headers) {
    this.json(response, status, {error: {message, type: 'invalid_request_error', param: null, code: null}}, headers);
  }

  async serve(request, response) {
    const path = new URL(request.url, 'http://host').pathname;
    const open = !this.key || request.headers.authorization === `Bearer ${this.key}`;
    if (/^\/(v1\/.*|props|metrics)$/.test(path) && !open) {
      this.error(response, 401, 'a valid API key is needed');
    } else if (path === '/props') {
      this.json(response, 200, this.props);
    } else if (path === '/metrics') {
      response.writeHead(200, {'content-type': 'text/plain; version=0.0.4'});
      response.end(this.counters.text());
    } else if (path.endsWith('/completions')) {
      await this.complete(request, response, path.includes('/chat/'));
    } else {
      const {data, type} = page(path);
      response.writeHead(200, {'content-type': type, 'content-security-policy': POLICY});
      response.end(data);
    }
  }

  async complete(request, response, chat) {
    const asked = await body(request);
    this.asked.push({path: request.url, ...asked});
    const text = chat ? asked.messages.at(-1).content : asked.prompt;
    if (text.includes('busy')) return this.error(response, 503, 'the queue is full', {'retry-after': '3'});
    if (text.includes('refuse')) return this.error(response, 400, 'the prompt has 9000 tokens, the context 4096');
    response.writeHead(200, {'content-type': 'text/event-stream'});
    response.write(': on its way\n\n');
    response.on('close', () => { if (!response.writableFinished) this.left += 1; });
    return this.stream(response, asked, text, chat);
  }

  async stream(response, asked, text, chat) {
    const send = value => response.write(`data: ${JSON.stringify(value)}\n\n`);
    const choice = (content, reason = null) => ({choices: [chat
      ? {index: 0, delta: content === null ? {} : {content}, finish_reason: reason}
      : {index: 0, text: content ?? '', finish_reason: reason}]});
    const floor = this.props.ladder[asked.moeprism?.point ?? asked.moeprism?.min_point ?? 0];
    const used = asked.moeprism?.point !== undefined ? floor : this.props.ladder[Math.floor(floor.point / 2)];
    const pace = this.pace * (1 - 0.5 * (1 - used.compute_share));
    const words = (text.includes('markup') ? MARKUP : text.includes('long') ? `${ANSWER}\n\n` : ANSWER).split(/(?<=\s)/);
    const end = text.includes('long') ? Infinity : Math.min(words.length, asked.max_tokens ?? Infinity);
    this.counters.begin();
    await sleep(5 * pace);
    if (chat) send({choices: [{index: 0, delta: {role: 'assistant'}, finish_reason: null}]});
    let n = 0;
    while (n < end && !response.destroyed) {
      const word = choice(words[n % words.length]);
      n += 1;
      send(asked.stream_options?.continuous_usage_stats ? {...word, usage: this.usage(n, floor, used, pace)} : word);
      this.counters.token(used.point, pace / 1000);
      if (n === 12 && text.includes('break')) {
        response.socket.end(); /* what was sent arrives, however slow the page */
        this.counters.end();
        return;
      }
      if (n === 12 && text.includes('midway')) send({error: {message: 'the step failed: out of pages'}});
      await sleep(pace);
    }
    this.counters.end();
    send(choice(null, n < words.length ? 'length' : 'stop'));
    send({choices: [], usage: this.usage(n, floor, used, pace)});
    response.end('data: [DONE]\n\n');
  }

  usage(n, floor, used, pace) {
    return {prompt_tokens: 21, completion_tokens: n, total_tokens: 21 + n, moeprism: {
      experts_mean: used.experts, experts_floor: floor.experts, compute_share: used.compute_share,
      compute_floor: floor.compute_share, gate_share: used.gate_share, points: [used.point, used.point],
      floor_point: floor.point, ppl_increase: used.ppl_increase, ppl_increase_floor: floor.ppl_increase,
      queue_ms: 12, ttft_ms: 5 * pace + 12, tpot_ms: pace, cached_tokens: 16}};
  }
}
