/* The metrics of the mock server: what it streams, plus a made-up load of others, so that charts have something to
 * show. `fast(seconds)` lives through some time at once. */
const BOUNDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];

class Histogram {
  constructor(name) {
    Object.assign(this, {name, counts: BOUNDS.map(() => 0), n: 0, sum: 0});
  }

  see(value, times = 1) {
    BOUNDS.forEach((bound, i) => { if (value <= bound) this.counts[i] += times; });
    this.n += times;
    this.sum += value * times;
  }

  text() {
    return [`# TYPE ${this.name} histogram`,
      ...BOUNDS.map((bound, i) => `${this.name}_bucket{le="${bound}"} ${this.counts[i]}`),
      `${this.name}_bucket{le="+Inf"} ${this.n}`, `${this.name}_sum ${this.sum}`, `${this.name}_count ${this.n}`];
  }
}

export class Counters {
  constructor(ladder) {
    Object.assign(this, {running: 0, others: 0, waiting: 0, generated: 0, prompt: 0, points: ladder.map(() => 0), tick: 0,
      ttft: new Histogram('moeprism_time_to_first_token_seconds'),
      tpot: new Histogram('moeprism_inter_token_seconds')});
  }

  begin() {
    this.running += 1;
    this.prompt += 21;
    this.ttft.see(0.09);
  }

  token(point, seconds) {
    this.generated += 1;
    this.points[point] += 1;
    this.tpot.see(seconds);
  }

  end() {
    this.running -= 1;
  }

  /* One second of other people's requests: the busier, the cheaper the point. */
  live() {
    const t = this.tick++;
    const wave = 0.5 + 0.42 * Math.sin(t / 17) + 0.14 * Math.sin(t / 3.1);
    const load = Math.max(0, Math.min(1, wave));
    this.others = Math.round(8 * load);
    this.waiting = Math.max(0, Math.round(9 * (load - 0.75) * 4));
    const point = Math.min(this.points.length - 1, Math.round(8 * load * load));
    const n = Math.round(this.others * (26 + 4 * Math.sin(t / 5)));
    this.generated += n;
    this.points[point] += n;
    this.prompt += 40 * this.others;
    this.tpot.see(0.012 + 0.03 * load, n);
    this.ttft.see(0.05 + 0.5 * load * load, 1 + this.others);
  }

  text() {
    if (this.busy) this.live();
    return [
      '# TYPE moeprism_requests_running gauge', `moeprism_requests_running ${this.running + this.others}`,
      '# TYPE moeprism_requests_waiting gauge', `moeprism_requests_waiting ${this.waiting}`,
      '# TYPE moeprism_tokens_total counter', `moeprism_tokens_total{kind="generated"} ${this.generated}`,
      `moeprism_tokens_total{kind="prompt"} ${this.prompt}`,
      '# TYPE moeprism_point_tokens_total counter',
      ...this.points.map((n, point) => `moeprism_point_tokens_total{point="${point}"} ${n}`),
      ...this.ttft.text(), ...this.tpot.text(), ''].join('\n');
  }
}
