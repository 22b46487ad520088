/* Puts the page together: asks the server what it is, then sets up dials, conversation and charts. */
import {key, request} from './api.js';
import {Chat} from './chat.js';
import {Charts} from './charts.js';
import {Dial} from './dial.js';
import {count, element} from './format.js';

const $ = id => document.getElementById(id);
const POLL = 1000, POLL_GONE = 4000; /* milliseconds between two looks at the metrics */

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

function tell(state, text) {
  $('state').dataset.state = state;
  $('state-text').textContent = text;
}

/* Shows one of the three parts where the screen holds only one. */
function watchViews() {
  const buttons = [...document.querySelectorAll('nav.views button')];
  const choose = view => {
    document.body.dataset.view = view;
    for (const button of buttons) button.setAttribute('aria-pressed', String(button.dataset.view === view));
  };
  for (const button of buttons) button.addEventListener('click', () => choose(button.dataset.view));
  $('choice').addEventListener('click', () => {
    choose('quality');
    document.querySelector('.dial input').focus();
  });
}

/* Asks for a key; resolves when one was given. `again` is run then. */
const wanting = [];
function askKey(again) {
  wanting.push(again);
  $('key-form').hidden = false;
  tell('locked', 'needs a key');
  $('key').focus();
}

function watchKey() {
  $('forget').hidden = !key.get();
  $('key-form').addEventListener('submit', event => {
    event.preventDefault();
    key.set($('key').value.trim());
    $('key').value = '';
    $('key-form').hidden = true;
    $('forget').hidden = false;
    for (const again of wanting.splice(0)) again();
  });
  $('forget').addEventListener('click', () => {
    key.set('');
    location.reload();
  });
}

/* What the server is. Keeps asking until it answers. */
async function askProps() {
  for (;;) {
    try {
      return await (await request('/props')).json();
    } catch (trouble) {
      if (trouble.kind === 'key') {
        if (key.get()) $('key-why').textContent = 'The server did not accept this key. Please try another.';
        key.set('');
        await new Promise(askKey);
      } else {
        tell('gone', 'not reachable');
        await sleep(POLL_GONE);
      }
    }
  }
}

/* One dial, and a second one for side by side. Returns the dials in use, and follows the check box. */
function makeDials(props) {
  const make = (title, name, point) => new Dial(props, {title, name, point});
  const [left, right] = [make('Quality', 'left', props.floor ?? 0), make('Right', 'right', 0)];
  const used = () => ($('compare').checked ? [left, right] : [left]);
  const change = () => { $('choice').textContent = used().map(dial => dial.words()).join(' · '); };
  left.onchange = right.onchange = change;
  $('dials').append(left.node);
  let before = left.exact;
  $('compare').addEventListener('change', () => {
    const both = $('compare').checked;
    left.title(both ? 'Left' : 'Quality');
    if (both) {
      before = left.exact;
      if (left.point === right.point) left.point = props.levels?.medium ?? props.ladder.length - 1;
      $('dials').append(right.node);
    } else {
      right.node.remove();
    }
    /* An idle server would run both at full: to be compared, points are meant exactly. */
    left.exact = both || before;
    right.exact = true;
  });
  $('compare').disabled = props.ladder.length < 2;
  change();
  return used;
}

const EXAMPLES = {
  chat: ['How does a prism split light? Three sentences, please.', 'Write a limerick about a patient librarian.'],
  text: ['Once upon a time, there was a', 'The best thing about winter is'],
};

function welcome(props) {
  const chats = props.chat_template !== null;
  $('welcome-text').textContent = [
    props.ladder.length < 2
      ? 'This model is not split into sub-experts, so it has one operating point: whole.'
      : `For every token this model asks ${count(props.n_experts_used, 'expert')}, split into small parts. The dial ` +
        'says how many of these parts are worth their time. Each answer tells what it used.',
    chats ? '' : 'It has no chat template: it continues the text that you begin, and each message stands alone.',
  ].join(' ').trim();
  $('prompt').placeholder = chats ? 'Ask something' : 'Begin a text';
  $('system-setting').hidden = !chats;
  for (const text of EXAMPLES[chats ? 'chat' : 'text']) {
    const button = element('button', '', text);
    button.type = 'button';
    button.addEventListener('click', () => {
      $('prompt').value = text;
      $('prompt').dispatchEvent(new Event('input'));
      $('prompt').focus();
    });
    $('examples').append(button);
  }
}

function describe(props) {
  document.title = `${props.model} · MoE-Prism`;
  $('model').textContent = props.model;
  $('model').title = [props.architecture, `context ${count(props.n_ctx, 'token')}`, count(props.slots, 'slot'),
    `policy ${props.policy}`, `version ${props.version}`].join(', ');
  $('max-tokens').max = props.n_ctx;
  $('max-tokens').value = Math.min(256, Math.max(1, Math.floor(props.n_ctx / 2)));
}

function load(now) {
  if (now.running === null) return tell('idle', 'ready');
  if (now.running + now.waiting === 0) return tell('idle', 'idle');
  return tell('busy', `${now.running} running${now.waiting > 0 ? `, ${now.waiting} waiting` : ''}`);
}

/* Looks at the metrics once a second, unless nobody looks at the page. */
async function watchLoad(charts) {
  for (;;) {
    let pause = POLL;
    try {
      if (!document.hidden) {
        const text = await (await request('/metrics')).text();
        load(charts.add(performance.now() / 1000, text));
      }
    } catch (trouble) {
      if (trouble.kind === 'key') await new Promise(askKey);
      else tell('gone', 'not reachable');
      pause = POLL_GONE;
    }
    await sleep(pause);
  }
}

async function start() {
  watchViews();
  watchKey();
  const props = await askProps();
  describe(props);
  welcome(props);
  const chat = new Chat({props, columns: makeDials(props), onkey: askKey});
  document.body.dataset.ready = 'yes';
  if (matchMedia('(hover: hover)').matches) chat.prompt.focus();
  watchLoad(new Charts(props, $('charts')));
}

start();
