/* The server's metrics as numbers over a window of time. Prometheus text in; rates, means and quantiles out. Pure: the
 * time of a sample is an argument. */

/* What the charts are made from. Durations are seconds. */
export const NAMES = {
  running: 'moeprism_requests_running',
  waiting: 'moeprism_requests_waiting',
  ttft: 'moeprism_time_to_first_token_seconds',
  tpot: 'moeprism_inter_token_seconds',
  tokens: 'moeprism_tokens_total',
  points: 'moeprism_point_tokens_total',
};

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;

function value(text) {
  if (text === '+Inf') return Infinity;
  return text === '-Inf' ? -Infinity : Number(text);
}

function labels(text) {
  const found = {};
  for (const [, name, quoted] of (text ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
    found[name] = quoted.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
  return found;
}

/* Text into a map: name -> [{labels, value}]. Comments and what cannot be read are passed over. */
export function parse(text) {
  const series = new Map();
  for (const line of text.split('\n')) {
    const match = line.startsWith('#') ? null : LINE.exec(line);
    if (!match) continue;
    if (!series.has(match[1])) series.set(match[1], []);
    series.get(match[1]).push({labels: labels(match[2]), value: value(match[3])});
  }
  return series;
}

const matches = (entry, wanted) => Object.entries(wanted).every(([name, text]) => entry.labels[name] === text);

/* Sum of the entries with these labels; null where there are none. */
export function sum(series, name, wanted = {}) {
  const entries = (series.get(name) ?? []).filter(entry => matches(entry, wanted));
  return entries.length ? entries.reduce((total, entry) => total + entry.value, 0) : null;
}

/* Cumulative counts by upper bound, rising. */
function buckets(series, name) {
  const bounds = new Map();
  for (const entry of series.get(`${name}_bucket`) ?? []) {
    const bound = value(entry.labels.le);
    bounds.set(bound, (bounds.get(bound) ?? 0) + entry.value);
  }
  return [...bounds].sort((a, b) => a[0] - b[0]);
}

/* Two samples, {seconds, series}, the earlier first: what happened between them. */
export class Window {
  constructor(from, to) {
    this.from = from;
    this.to = to;
  }

  difference(name, wanted) {
    const to = sum(this.to.series, name, wanted);
    return to === null ? null : to - (sum(this.from.series, name, wanted) ?? 0);
  }

  /* A second; null where nothing counts it. */
  rate(name, wanted) {
    const seconds = this.to.seconds - this.from.seconds;
    const n = this.difference(name, wanted);
    return n === null || seconds <= 0 ? null : n / seconds;
  }

  /* The q-quantile of what a histogram saw, straight within a bucket; null where it saw nothing. */
  quantile(name, q) {
    const before = new Map(buckets(this.from.series, name));
    const seen = buckets(this.to.series, name).map(([bound, n]) => [bound, n - (before.get(bound) ?? 0)]);
    const total = seen.at(-1)?.[1] ?? 0;
    if (total <= 0) return null;
    let low = 0, below = 0;
    for (const [bound, n] of seen) {
      if (n >= q * total) {
        if (bound === Infinity) return low;
        return low + (bound - low) * (n > below ? (q * total - below) / (n - below) : 1);
      }
      low = bound;
      below = n;
    }
    return low;
  }

  /* Mean of `of[label]` weighted by what the counter saw under that label; null where it saw nothing. */
  mean(name, label, of) {
    let total = 0, weighted = 0;
    for (const key of new Set((this.to.series.get(name) ?? []).map(entry => entry.labels[label]))) {
      const n = this.difference(name, {[label]: key});
      if (!(n > 0) || of[key] === undefined) continue;
      total += n;
      weighted += n * of[key];
    }
    return total > 0 ? weighted / total : null;
  }
}

/* The last samples of a server. One that counts less than before has been started anew: what was before is dropped. */
export class History {
  constructor(seconds) {
    this.seconds = seconds;
    this.samples = [];
  }

  add(seconds, text) {
    const series = parse(text);
    const last = this.samples.at(-1);
    if (last && (sum(series, NAMES.tokens) ?? 0) < (sum(last.series, NAMES.tokens) ?? 0)) this.samples = [];
    this.samples.push({seconds, series});
    while (this.samples[0].seconds < seconds - this.seconds) this.samples.shift();
  }

  /* The present value; null where there is none. */
  last(name) {
    return this.samples.length ? sum(this.samples.at(-1).series, name) : null;
  }

  /* From `seconds` ago, or the oldest since, to now; null with fewer than two samples. */
  window(seconds) {
    const to = this.samples.at(-1);
    const from = this.samples.find(sample => sample.seconds >= to?.seconds - seconds);
    return !to || from === to ? null : new Window(from, to);
  }
}
