/* The official clients of OpenAI and Anthropic against a running server: node clients.mjs URL KEY. Prints TAP. The model
 * needs no sense: greedy replies are compared with each other. */
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const [url, key] = process.argv.slice(2);
const openai = new OpenAI({baseURL: `${url}/v1`, apiKey: key, maxRetries: 0});
const anthropic = new Anthropic({baseURL: url, apiKey: key, maxRetries: 0});

const model = (await openai.models.list()).data[0].id;
const messages = [{role: 'user', content: 'The old lighthouse'}];
const greedy = {model, temperature: 0, max_tokens: 12};

const tests = [];
const test = (name, body) => tests.push({name, body});

/* ---- OpenAI ---- */

test('openai: models', async () => {
  const found = await openai.models.retrieve(model);
  assert.equal(found.id, model);
  await assert.rejects(openai.models.retrieve('nothing'), OpenAI.NotFoundError);
});

test('openai: chat, whole and streamed, give the same text', async () => {
  const whole = await openai.chat.completions.create({...greedy, messages});
  assert.equal(whole.object, 'chat.completion');
  assert.equal(whole.choices[0].message.role, 'assistant');
  assert.ok(whole.usage.completion_tokens > 0 && whole.usage.completion_tokens <= 12);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  assert.equal(whole.usage.moeprism.floor_point, 0);

  const stream = await openai.chat.completions.create(
    {...greedy, messages, stream: true, stream_options: {include_usage: true}});
  let text = '', first, finish, usage;
  for await (const chunk of stream) {
    first ??= chunk;
    usage = chunk.usage ?? usage;
    text += chunk.choices[0]?.delta.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  assert.equal(first.choices[0].delta.role, 'assistant');
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test('openai: the stream helper', async () => {
  const whole = await openai.chat.completions.create({...greedy, messages});
  const final = await openai.chat.completions.stream({...greedy, messages}).finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

test('openai: several choices, logprobs', async () => {
  const reply = await openai.chat.completions.create({...greedy, messages, n: 2, logprobs: true, top_logprobs: 3});
  assert.equal(reply.choices.length, 2);
  assert.equal(reply.choices[0].message.content, reply.choices[1].message.content);
  const {content} = reply.choices[0].logprobs;
  assert.ok(content.length > 0);
  for (const token of content) {
    assert.equal(token.top_logprobs.length, 3);
    assert.ok(token.logprob <= 0);
    assert.equal(token.logprob, token.top_logprobs[0].logprob); /* greedy takes the likeliest */
  }
});

test('openai: completions, echo and several prompts', async () => {
  const one = await openai.completions.create({...greedy, prompt: 'The old'});
  const two = await openai.completions.create({...greedy, prompt: ['The old', 'On the'], echo: true});
  assert.equal(two.choices.length, 2);
  assert.equal(two.choices[0].text, `The old${one.choices[0].text}`);
  assert.ok(two.choices[1].text.startsWith('On the'));
  let text = '';
  for await (const chunk of await openai.completions.create({...greedy, prompt: 'The old', stream: true}))
    text += chunk.choices[0].text;
  assert.equal(text, one.choices[0].text);
});

test('openai: quality by an extra field', async () => {
  const reply = await openai.chat.completions.create({...greedy, messages, moeprism: {experts: 'medium'}});
  const {points, floor_point, compute_share} = reply.usage.moeprism;
  assert.ok(floor_point > 0);
  assert.deepEqual(points, [floor_point, floor_point]);
  assert.ok(compute_share < 0.75);
});

test('openai: a stream that is broken off', async () => {
  const stream = await openai.chat.completions.create({...greedy, max_tokens: 100, messages, stream: true, ignore_eos: true});
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break; /* the client closes the connection */
  }
});

test('openai: errors', async () => {
  await assert.rejects(openai.chat.completions.create({...greedy, messages, temperature: 'hot'}), error => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, 'temperature');
    return true;
  });
  const stranger = new OpenAI({baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0});
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

/* ---- Anthropic ---- */

test('anthropic: messages, whole and streamed, give the same text', async () => {
  const whole = await anthropic.messages.create({...greedy, messages, system: 'Be the sea.'});
  assert.equal(whole.type, 'message');
  assert.equal(whole.content[0].type, 'text');
  assert.ok(['max_tokens', 'end_turn'].includes(whole.stop_reason));
  assert.ok(whole.usage.output_tokens > 0);

  const final = await anthropic.messages.stream({...greedy, messages, system: 'Be the sea.'}).finalMessage();
  assert.equal(final.content[0].text, whole.content[0].text);
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test('anthropic: stop sequences', async () => {
  const whole = await anthropic.messages.create({...greedy, messages});
  const word = whole.content[0].text.trim().slice(2, 5);
  const cut = await anthropic.messages.create({...greedy, messages, stop_sequences: [word]});
  assert.equal(cut.stop_reason, 'stop_sequence');
  assert.equal(cut.stop_sequence, word);
  assert.equal(cut.content[0].text, whole.content[0].text.split(word)[0]);
});

test('anthropic: tokens are counted', async () => {
  const whole = await anthropic.messages.create({...greedy, max_tokens: 1, messages});
  const counted = await anthropic.messages.countTokens({model, messages});
  assert.equal(counted.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens);
});

test('anthropic: errors', async () => {
  await assert.rejects(anthropic.messages.create({...greedy, messages, top_k: 'x'}), error => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, 'invalid_request_error');
    return true;
  });
  const stranger = new Anthropic({baseURL: url, apiKey: 'wrong', maxRetries: 0});
  await assert.rejects(stranger.messages.create({...greedy, messages}), Anthropic.AuthenticationError);
});

console.log(`1..${tests.length}`);
for (const [i, {name, body}] of tests.entries()) {
  try {
    await body();
    console.log(`ok ${i + 1} - ${name}`);
  } catch (error) {
    console.log(`not ok ${i + 1} - ${name}`);
    console.log(String(error.stack).replace(/^/gm, '# '));
  }
}
