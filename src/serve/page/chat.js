/* The conversation. A turn is a message and its answers: one, or two side by side. Each column goes on with its own
 * answers; what a column did not answer itself it takes from the first. */
import {Answer} from './answer.js';
import {events, request, Trouble} from './api.js';
import {element} from './format.js';

const $ = id => document.getElementById(id);
const NEAR = 60; /* pixels from the end that still count as being there */

const ENDS = {failed: 'The answer failed.', stopped: 'Stopped.', done: 'The answer is complete.'};

const SENTENCES = {
  gone: 'The server cannot be reached. It may have stopped, or the network is down; what you wrote is kept.',
  broke: 'The connection broke off here. What had come is kept.',
  key: 'The server did not accept this without a valid API key.',
};

function sentence(trouble, started) {
  if (trouble.kind === 'gone') return started ? SENTENCES.broke : SENTENCES.gone;
  if (trouble.kind === 'key') return SENTENCES.key;
  if (trouble.kind !== 'busy') return trouble.message;
  const wait = trouble.wait > 0 ? ` It asks to wait about ${Math.ceil(trouble.wait)} s.` : '';
  return `The server is full right now: every slot is taken, and so is its queue.${wait}`;
}

export class Chat {
  /* `columns()`: the dials in use, one or two. `onkey`: a key is needed. */
  constructor({props, columns, onkey}) {
    Object.assign(this, {props, columns, onkey, turns: [], running: null});
    this.talk = $('talk');
    this.prompt = $('prompt');
    $('composer').addEventListener('submit', event => {
      event.preventDefault();
      this.send();
    });
    $('stop').addEventListener('click', () => this.stop());
    $('clear').addEventListener('click', () => this.clear());
    this.prompt.addEventListener('input', () => this.fit());
    this.prompt.addEventListener('keydown', event => this.pressed(event));
    document.addEventListener('keydown', event => {
      if (event.key === 'Escape' && this.running) this.stop();
    });
  }

  pressed(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  /* The field is as high as its text, to a limit that the style sheet sets. */
  fit() {
    this.prompt.style.height = 'auto';
    this.prompt.style.height = `${this.prompt.scrollHeight + 2}px`;
  }

  stop() {
    this.running?.abort();
  }

  clear() {
    this.stop();
    this.turns = [];
    $('log').replaceChildren();
    $('welcome').hidden = false;
    $('clear').hidden = true;
    this.prompt.focus();
  }

  async send() {
    const text = this.prompt.value;
    if (!text.trim() || this.running) return;
    this.prompt.value = '';
    this.fit();
    const columns = this.columns();
    const turn = {text, seed: Math.floor(Math.random() * 2 ** 31)};
    turn.answers = columns.map(dial => new Answer({name: dial.node.dataset.name, words: dial.words(),
      used: this.props.n_experts_used, exact: dial.exact, request: dial.request()}));
    this.turns.push(turn);
    this.show(turn);
    await this.run(turn, turn.answers);
  }

  show(turn) {
    $('welcome').hidden = true;
    $('clear').hidden = false;
    const said = element('div', 'said', element('span', 'unseen', 'You: '), turn.text);
    const row = element('div', 'answers', ...turn.answers.map(answer => answer.node));
    row.dataset.columns = turn.answers.length;
    for (const answer of turn.answers) answer.flow.onshow = () => this.follow();
    $('log').append(element('section', 'turn', said, row));
    this.toEnd();
  }

  toEnd() {
    this.talk.scrollTop = this.talk.scrollHeight;
    this.height = this.talk.scrollHeight;
  }

  /* Keeps the end in sight, unless the reader has scrolled away from it. */
  follow() {
    if (this.height - this.talk.scrollTop - this.talk.clientHeight < NEAR) this.toEnd();
    this.height = this.talk.scrollHeight;
  }

  async run(turn, answers) {
    if (this.running) return;
    this.running = new AbortController();
    this.busy(true);
    await Promise.all(answers.map(answer => this.answer(turn, answer)));
    this.running = null;
    this.busy(false);
    this.follow();
    const states = answers.map(answer => answer.node.dataset.state);
    $('told').textContent = ENDS[['failed', 'stopped', 'done'].find(state => states.includes(state))];
  }

  busy(busy) {
    const held = document.activeElement === $('stop') || document.activeElement === $('send');
    $('send').hidden = busy;
    $('stop').hidden = !busy;
    if (held) (busy ? $('stop') : this.prompt).focus();
    if (busy) $('told').textContent = 'Answering.';
  }

  async answer(turn, answer) {
    const {signal} = this.running;
    answer.begin();
    let usage = null, reason = null;
    try {
      const response = await request(this.path(), {body: this.body(turn, answer), signal});
      for await (const event of events(response, signal)) {
        const choice = event.choices?.[0];
        answer.append(choice?.delta?.content ?? choice?.text);
        reason = choice?.finish_reason ?? reason;
        usage = event.usage ?? usage;
      }
      answer.done(usage, reason);
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.fail(turn, answer, trouble, usage);
    }
  }

  fail(turn, answer, trouble, usage) {
    if (trouble.kind === 'stopped') {
      answer.stopped(usage);
      return;
    }
    const again = () => this.run(turn, [answer]);
    answer.failed(sentence(trouble, answer.text !== ''), again, usage);
    if (trouble.kind === 'key') this.onkey(again);
  }

  path() {
    return this.props.chat_template === null ? '/v1/completions' : '/v1/chat/completions';
  }

  /* A model without a chat template continues the message and knows nothing of those before. */
  body(turn, answer) {
    const whole = (id, least) => Math.max(least, Number($(id).value) || 0);
    const common = {
      model: this.props.model, stream: true, seed: turn.seed,
      stream_options: {include_usage: true, continuous_usage_stats: true}, /* it may be stopped at any token */
      temperature: whole('temperature', 0), max_tokens: whole('max-tokens', 1), moeprism: answer.asked.request,
    };
    if (this.props.chat_template === null) return {...common, prompt: turn.text};
    return {...common, messages: this.messages(turn, turn.answers.indexOf(answer))};
  }

  messages(turn, column) {
    const messages = [];
    const system = $('system').value.trim();
    if (system) messages.push({role: 'system', content: system});
    for (const before of this.turns) {
      messages.push({role: 'user', content: before.text});
      if (before === turn) break;
      const answer = before.answers[column] ?? before.answers[0];
      if (answer.text) messages.push({role: 'assistant', content: answer.text});
      else messages.pop(); /* nothing came: as if it had not been asked */
    }
    return messages;
  }
}
