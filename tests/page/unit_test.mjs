/* What needs no browser: reading metrics, cutting text into blocks, numbers in words. */
import assert from 'node:assert/strict';
import {increase, known, milliseconds, percent, speed} from './format.js';
import {test} from './harness.mjs';
import {History, parse, sum} from './metrics.js';
import {blocks} from './text.js';

const page = (n, buckets) => [
  '# HELP moeprism_tokens_total Tokens.', '# TYPE moeprism_tokens_total counter',
  `moeprism_tokens_total{kind="generated"} ${n}`, `moeprism_tokens_total{kind="prompt"} 5`,
  `moeprism_point_tokens_total{point="0"} ${n}`, `moeprism_point_tokens_total{point="4"} ${3 * n}`,
  ...buckets.map(([le, count]) => `t_seconds_bucket{le="${le}"} ${count}`), 't_seconds_sum 1', ''].join('\n');

async function metricsTests() {
  await test('metrics: names, labels and values are read, comments and rubbish passed over', () => {
    const series = parse('# HELP a b\na 1\nb{x="1",y="q\\"\\\\\\n"} 2.5e3\nb{x="2"} +Inf\n\nnot a line\nc NaN 123\n');
    assert.deepEqual(series.get('a'), [{labels: {}, value: 1}]);
    assert.deepEqual(series.get('b')[0], {labels: {x: '1', y: 'q"\\\n'}, value: 2500});
    assert.equal(series.get('b')[1].value, Infinity);
    assert.ok(Number.isNaN(series.get('c')[0].value));
    assert.equal(sum(series, 'b', {x: '1'}), 2500);
    assert.equal(sum(series, 'none'), null);
  });
  await test('metrics: rates, means and quantiles are of the window', () => {
    const history = new History(60);
    history.add(0, page(100, [['0.1', 10], ['0.2', 10], ['+Inf', 10]]));
    assert.equal(history.window(10), null);
    history.add(10, page(300, [['0.1', 10], ['0.2', 20], ['+Inf', 20]]));
    const window = history.window(10);
    assert.equal(window.rate('moeprism_tokens_total', {kind: 'generated'}), 20);
    assert.equal(window.rate('moeprism_tokens_total', {kind: 'prompt'}), 0);
    assert.equal(window.rate('none'), null);
    assert.equal(window.mean('moeprism_point_tokens_total', 'point', {0: 8, 4: 4}), 5);
    assert.ok(Math.abs(window.quantile('t_seconds', 0.5) - 0.15) < 1e-12);
    assert.ok(Math.abs(window.quantile('t_seconds', 1) - 0.2) < 1e-12);
    history.add(20, page(300, [['0.1', 10], ['0.2', 20], ['+Inf', 20]]));
    assert.equal(history.window(5), null);
    assert.equal(history.window(10).quantile('t_seconds', 0.5), null);
    assert.equal(history.window(10).mean('moeprism_point_tokens_total', 'point', {0: 8, 4: 4}), null);
  });
  await test('metrics: what lies past the last bound counts as the last bound', () => {
    const history = new History(60);
    history.add(0, page(0, [['0.1', 0], ['+Inf', 0]]));
    history.add(1, page(0, [['0.1', 0], ['+Inf', 4]]));
    assert.equal(history.window(10).quantile('t_seconds', 0.5), 0.1);
  });
  await test('metrics: a server that starts anew starts a new history, old samples go', () => {
    const history = new History(60);
    for (const t of [0, 30, 70]) history.add(t, page(100 + t, []));
    assert.deepEqual(history.samples.map(sample => sample.seconds), [30, 70]);
    history.add(71, page(1, []));
    assert.deepEqual(history.samples.map(sample => sample.seconds), [71]);
  });
}

export async function unitTests() {
  await metricsTests();
  await test('text: paragraphs and fences, also one that is still open', () => {
    assert.deepEqual(blocks('a\nb\n\n\nc').map(block => block.text), ['a\nb', 'c']);
    const found = blocks('x\n```py\n\nif a:\n\n  b\n```\ny\n```\nopen');
    assert.deepEqual(found.map(({code, text}) => [code, text]),
      [[false, 'x'], [true, '\nif a:\n\n  b'], [false, 'y'], [true, 'open']]);
    assert.equal(found[1].language, 'py');
    assert.deepEqual(blocks(' \n\n'), []);
  });
  await test('numbers: in words, with what is not measured named', () => {
    const plain = text => text.replaceAll('\u00a0', ' ');
    assert.equal(plain(percent(0.28125)), '28.1 %');
    assert.equal(plain(percent(0.0625)), '6.3 %');
    assert.deepEqual([0.013, 0.0002, -0.004, null].map(increase).map(plain), ['+1.3 %', 'none', '−0.4 %', 'not measured']);
    assert.deepEqual([4.26, 999.4, 999.6, 12345].map(milliseconds).map(plain), ['4.3 ms', '999 ms', '1 s', '12.3 s']);
    assert.deepEqual([3.14159, 1234.5, null].map(speed).map(plain), ['3.1 tokens/s', '1,230 tokens/s', 'not measured']);
    assert.deepEqual([0, NaN, null, undefined, '1'].map(known), [true, false, false, false, false]);
  });
}
