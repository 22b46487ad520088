/* Live charts of the server's load, made from its metrics. The legends carry the present values as text, so that the
 * charts are readable without seeing them. */
/* global Chart */
import {element, experts, known, milliseconds, speed} from './format.js';
import {History, NAMES} from './metrics.js';

const SPAN = 120; /* seconds shown */
const RATE = 5, LATENCY = 15; /* seconds that a rate, a quantile is taken over */
const AXIS = 46; /* pixels: all charts start at the same place */

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const scaled = (value, factor) => (known(value) ? value * factor : null);
const round = value => (known(value) ? String(value) : '?');

/* What a chart shows: its series' names, colours, values from windows, and how these read. */
function specifications(props) {
  const ladder = Object.fromEntries(props.ladder.map(rung => [rung.point, rung.experts]));
  return [
    {title: 'Requests', integer: true, series: [
      {name: 'running', colour: '--ladder', text: round, stepped: true, of: w => w.last(NAMES.running)},
      {name: 'waiting', colour: '--whole', text: round, stepped: true, of: w => w.last(NAMES.waiting)}]},
    {title: 'Latency, median', logarithmic: true, series: [
      {name: 'first token', colour: '--ladder', text: milliseconds,
        of: w => scaled(w.over(LATENCY)?.quantile(NAMES.ttft, 0.5), 1000)},
      {name: 'between tokens', colour: '--whole', text: milliseconds,
        of: w => scaled(w.over(LATENCY)?.quantile(NAMES.tpot, 0.5), 1000)}]},
    {title: 'Operating point', most: props.n_experts_used, series: [
      {name: `of ${props.n_experts_used} experts, mean`, colour: '--ladder', text: experts,
        of: w => w.over(RATE)?.mean(NAMES.points, 'point', ladder)}]},
    {title: 'Throughput', series: [
      {name: 'written', colour: '--ladder', text: speed, of: w => w.over(RATE)?.rate(NAMES.tokens, {kind: 'generated'})},
      {name: 'read', colour: '--whole', text: speed, of: w => w.over(RATE)?.rate(NAMES.tokens, {kind: 'prompt'})}]},
  ];
}

function options(spec) {
  const y = {type: spec.logarithmic ? 'logarithmic' : 'linear', min: spec.logarithmic ? undefined : 0,
    max: spec.most && spec.most * 1.05, suggestedMax: spec.integer ? 4 : undefined, ticks: {maxTicksLimit: 4, padding: 4},
    grid: {drawTicks: false}, afterFit: scale => { scale.width = AXIS; }};
  if (spec.integer) y.ticks.precision = 0;
  if (spec.most) Object.assign(y.ticks, {stepSize: spec.most / 2, includeBounds: false});
  if (spec.logarithmic) {
    Object.assign(y, {suggestedMin: 1, suggestedMax: 1000, afterBuildTicks: scale => {
      scale.ticks = scale.ticks.filter(tick => Number.isInteger(Math.log10(tick.value)));
    }});
    y.ticks.callback = milliseconds;
  }
  return {
    responsive: true, maintainAspectRatio: false, animation: false, events: [], normalized: true, parsing: false,
    scales: {x: {type: 'linear', ticks: {display: false}, grid: {display: false, drawTicks: false}}, y},
    plugins: {legend: {display: false}, tooltip: {enabled: false}},
  };
}

class Plot {
  constructor(spec, place) {
    this.spec = spec;
    this.values = spec.series.map(() => element('b', '', '–'));
    const legend = element('p', 'legend', ...spec.series.map((series, i) => {
      const key = element('span', '', element('i', 'mark'), this.values[i], ` ${series.name}`);
      key.dataset.colour = series.colour;
      return key;
    }));
    const canvas = element('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', `${spec.title} over the last two minutes; the values of now stand above`);
    place.append(element('figure', 'plot', element('h3', '', spec.title), legend, element('div', 'canvas', canvas)));
    this.chart = new Chart(canvas, {type: 'line', options: options(spec), data: {datasets: spec.series.map(series => ({
      data: [], clip: 3, stepped: series.stepped ? 'before' : false, borderWidth: 1.75, pointRadius: 0, spanGaps: false,
      fill: series.colour === '--ladder' && !spec.logarithmic}))}});
    this.paint();
  }

  add(seconds, windows) {
    this.spec.series.forEach((series, i) => {
      const y = series.of(windows) ?? null;
      const {data} = this.chart.data.datasets[i];
      data.push({x: seconds, y});
      while (data[0].x < seconds - SPAN) data.shift();
      this.values[i].textContent = y === null ? '–' : series.text(y);
    });
    Object.assign(this.chart.options.scales.x, {min: seconds - SPAN, max: seconds});
    this.chart.update('none');
  }

  /* Canvas cannot see style sheets: colours come from the same custom properties. */
  paint() {
    this.spec.series.forEach((series, i) => {
      const colour = style(series.colour);
      Object.assign(this.chart.data.datasets[i], {borderColor: colour, backgroundColor: `${colour}22`});
    });
    const {y, x} = this.chart.options.scales;
    y.ticks.color = style('--soft');
    y.grid.color = y.grid.borderColor = x.grid.borderColor = style('--rule');
    this.chart.update('none');
  }
}

export class Charts {
  constructor(props, place) {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 11;
    this.history = new History(SPAN);
    this.plots = specifications(props).map(spec => new Plot(spec, place));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const plot of this.plots) plot.paint();
    });
  }

  /* A sample of /metrics, taken at `seconds`. Returns what runs and waits. */
  add(seconds, text) {
    this.history.add(seconds, text);
    const windows = {
      last: name => this.history.last(name),
      over: span => this.history.window(span),
    };
    for (const plot of this.plots) plot.add(seconds, windows);
    return {running: windows.last(NAMES.running), waiting: windows.last(NAMES.waiting)};
  }
}
