/* One answer: its text as it comes, what went wrong if something did, and the account of what it used beside what was
 * promised, from `usage.moeprism`. */
import {count, element, experts, increase, known, milliseconds, percent, shape, speed} from './format.js';
import {Flow} from './text.js';

const CELLS_MOST = 16; /* more experts than this are drawn as one bar */
const CELL = 10, GAP = 2, HEIGHT = 8;

/* Experts as cells, filled as far as they were used, with a tick at the promise. */
function gauge(used, floor, of) {
  const cells = of <= CELLS_MOST ? Math.max(1, Math.ceil(of)) : 1;
  const width = cells * CELL - GAP, unit = cells === 1 ? width / of : CELL;
  const place = n => (cells === 1 ? n * unit : Math.floor(n) * CELL + (n % 1) * (CELL - GAP));
  const bar = shape('svg', {class: 'gauge', viewBox: `0 -2 ${width} ${HEIGHT + 4}`, 'aria-hidden': 'true',
    width: cells === 1 ? 64 : Math.min(64, width)});
  for (let i = 0; i < cells; i++) {
    const fill = cells === 1 ? place(used) : Math.max(0, Math.min(1, used - i)) * (CELL - GAP);
    const cell = {x: i * CELL, y: 0, height: HEIGHT, rx: 1.5};
    bar.append(shape('rect', {...cell, class: 'cell', width: cells === 1 ? width : CELL - GAP}));
    if (fill > 0) bar.append(shape('rect', {...cell, class: 'fill', width: fill}));
  }
  if (known(floor) && floor < of) {
    bar.append(shape('line', {class: 'tick', x1: place(floor), x2: place(floor), y1: -2, y2: HEIGHT + 2}));
  }
  return bar;
}

const entry = (name, value, more = '') => element('div', '', element('dt', '', name),
  element('dd', '', ...[value].flat(), ...(more ? [element('small', '', more)] : [])));

function tokens(usage, account) {
  const prompt = count(usage.prompt_tokens, 'prompt token');
  const cached = account.cached_tokens > 0 ? `, ${account.cached_tokens} of them cached` : '';
  return entry('Length', count(usage.completion_tokens, 'token'), prompt + cached);
}

const loss = value => (increase(value) === 'none' ? 'no loss' : increase(value));

/* What there is to say about an answer's expert compute. */
function beside(account) {
  const gate = account.gate_share > 0 ? [`and ${percent(account.gate_share)} for the gate`] : [];
  const late = account.dropped_subexperts > 0 ? [`without ${count(account.dropped_subexperts, 'late sub-expert')}`] : [];
  return [...gate, ...late].join(', ');
}

/* What an answer used. `asked`: {used, exact} of its dial. */
function account(usage, asked) {
  const a = usage.moeprism ?? {};
  const list = element('dl', 'account');
  if (known(a.experts_mean)) {
    list.append(entry('Experts used', [gauge(a.experts_mean, asked.exact ? null : a.experts_floor, asked.used),
      element('span', '', `${experts(a.experts_mean)} of ${asked.used}`)],
    asked.exact ? `asked for ${experts(a.experts_floor)}` : `promised at least ${experts(a.experts_floor)}`));
    list.append(entry('Perplexity', loss(a.ppl_increase), known(a.ppl_increase_floor)
      ? `promised ${a.ppl_increase_floor > 0 && !asked.exact ? 'at most ' : ''}${loss(a.ppl_increase_floor)}` : ''));
    list.append(entry('Expert compute', percent(a.compute_share), beside(a)));
  }
  if (a.tpot_ms > 0) list.append(entry('Speed', speed(1000 / a.tpot_ms), `${milliseconds(a.tpot_ms)} a token`));
  if (known(a.ttft_ms)) {
    list.append(entry('First token', milliseconds(a.ttft_ms),
      a.queue_ms >= 1 ? `${milliseconds(a.queue_ms)} of it in the queue` : ''));
  }
  if (known(usage.completion_tokens)) list.append(tokens(usage, a));
  return list;
}

export class Answer {
  /* `asked`: {name, words, used, exact, request}: what the dial said when the message was sent. */
  constructor(asked) {
    this.asked = asked;
    this.body = element('div', 'words');
    this.after = element('div', 'after');
    this.node = element('article', 'answer', element('p', 'asked soft', asked.words), this.body, this.after);
    this.node.dataset.name = asked.name;
    this.flow = new Flow(this.body);
  }

  get text() {
    return this.flow.text;
  }

  begin() {
    this.flow.clear();
    this.after.replaceChildren();
    this.node.setAttribute('aria-busy', 'true');
    this.node.dataset.state = 'waiting';
  }

  append(text) {
    if (!text) return;
    this.node.dataset.state = 'streaming';
    this.flow.append(text);
  }

  end(state) {
    this.flow.show();
    this.node.dataset.state = state;
    this.node.removeAttribute('aria-busy');
  }

  /* `usage` may be missing, from a server that does not tell. */
  done(usage, reason) {
    this.end('done');
    if (!this.text.trim()) this.after.append(element('p', 'note soft', 'The answer is empty.'));
    if (reason === 'length') this.after.append(element('p', 'note soft', 'Cut off at the most tokens allowed.'));
    if (usage) this.after.append(account(usage, this.asked));
  }

  /* What an answer had used that did not come to its end: `usage` is the last that the stream told, null before the
   * first token. */
  until(usage, ...said) {
    const used = usage?.completion_tokens > 0;
    const words = [...said, ...(used ? ['What it had used by then:'] : [])].join(' ');
    if (words) this.after.append(element('p', 'note soft', words));
    if (used) this.after.append(account(usage, this.asked));
  }

  stopped(usage) {
    this.end('stopped');
    this.until(usage, 'You stopped this answer.');
  }

  failed(message, again, usage) {
    this.end('failed');
    const button = element('button', '', 'Try again');
    button.type = 'button';
    button.addEventListener('click', again);
    const box = element('div', 'trouble', element('p', '', message), button);
    box.setAttribute('role', 'alert');
    this.after.append(box);
    this.until(usage);
  }
}
