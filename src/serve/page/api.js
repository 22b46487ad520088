/* Talks with the server: one place for the key, for what can go wrong, and for event streams.
 *
 * Every failure is a Trouble of one kind, with a sentence for the reader:
 *   key      401: a key is needed, or the one given is wrong
 *   busy     503: try again after `wait` seconds
 *   refused  any other answer that is not a success
 *   gone     nobody answered, or the connection broke
 *   stopped  the reader stopped it */

const KEY = 'moeprism.key';

export class Trouble extends Error {
  constructor(kind, message, wait = 0) {
    super(message);
    this.kind = kind;
    this.wait = wait;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: value => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

async function refusal(response) {
  let said = '';
  try {
    said = (await response.json()).error?.message ?? '';
  } catch { /* no JSON: the status has to do */ }
  if (response.status === 401) return new Trouble('key', said || 'The server asks for an API key.');
  if (response.status === 503) {
    return new Trouble('busy', said, Math.max(0, Number.parseFloat(response.headers.get('retry-after')) || 0));
  }
  return new Trouble('refused', said || `The server answered ${response.status} ${response.statusText}.`);
}

function broken(error, signal) {
  if (error instanceof Trouble) return error;
  if (signal?.aborted) return new Trouble('stopped', 'Stopped.');
  return new Trouble('gone', 'The server cannot be reached.');
}

/* GET, or POST where there is a body. The response is a success; everything else is thrown. */
export async function request(path, {body, signal} = {}) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body) headers['content-type'] = 'application/json';
  try {
    const response = await fetch(path, {
      method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal, cache: 'no-store',
    });
    if (!response.ok) throw await refusal(response);
    return response;
  } catch (error) {
    throw broken(error, signal);
  }
}

/* The complete lines of a body, without their ends. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (rest + value).split(/\r?\n/);
    rest = parts.pop();
    yield* parts;
  }
}

/* The JSON of each event of a stream. Ends at [DONE]; a stream that ends before it has broken off. */
export async function* events(response, signal) {
  try {
    for await (const line of lines(response.body)) {
      if (!line.startsWith('data:')) continue; /* an empty line, or a comment that keeps the connection alive */
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) throw new Trouble('refused', event.error.message ?? 'The server could not go on.');
      yield event;
    }
  } catch (error) {
    throw broken(error, signal);
  }
  throw new Trouble('gone', 'The connection broke off.');
}
