/* The dial: a place on the model's ladder of operating points, and how it is meant. The curve above the slider shares
 * its axis: the dot stands over the thumb, so the eye reads what a step to the left costs. */
import {element, experts, increase, known, percent, shape, speed} from './format.js';

const WIDTH = 1000, HEIGHT = 100; /* of the curve's own coordinates */
let made = 0;

export class Dial {
  /* `props` as the server tells them. Set `onchange` to hear of changes. */
  constructor(props, {title, name, point}) {
    this.ladder = props.ladder;
    this.used = props.n_experts_used;
    this.node = document.getElementById('dial-template').content.firstElementChild.cloneNode(true);
    this.node.dataset.name = name;
    this.find('legend').textContent = title;
    this.range = this.find('input[type=range]');
    this.range.max = this.ladder.length - 1;
    this.range.disabled = this.ladder.length < 2;
    this.modes = [...this.node.querySelectorAll('input[type=radio]')];
    made += 1;
    for (const mode of this.modes) {
      mode.name = `mode-${made}`;
      mode.addEventListener('change', () => this.onchange?.());
    }
    this.range.addEventListener('input', () => this.show());
    this.drawCurve();
    this.addLevels(props.levels ?? {});
    this.point = point;
  }

  find(selector) {
    return this.node.querySelector(selector);
  }

  /* The slider grows to the right, the ladder falls from full at 0. */
  get point() {
    return this.ladder.length - 1 - Number(this.range.value);
  }

  set point(point) {
    this.range.value = this.ladder.length - 1 - Math.max(0, Math.min(point, this.ladder.length - 1));
    this.show();
  }

  get exact() {
    return this.modes.find(mode => mode.checked).value === 'exact';
  }

  set exact(exact) {
    for (const mode of this.modes) mode.checked = (mode.value === 'exact') === exact;
    this.onchange?.();
  }

  get rung() {
    return this.ladder[this.point];
  }

  /* The fields of a request. */
  request() {
    return this.exact ? {point: this.point} : {min_point: this.point};
  }

  /* "at least 2.25 of 8 experts" */
  words() {
    return `${this.exact ? 'exactly' : 'at least'} ${experts(this.rung.experts)} of ${this.used} experts`;
  }

  title(text) {
    this.find('legend').textContent = text;
  }

  show() {
    const rung = this.rung;
    const loss = known(rung.ppl_increase) && increase(rung.ppl_increase) !== 'none'
      ? `${increase(rung.ppl_increase)} perplexity` : increase(rung.ppl_increase);
    this.find('.experts').textContent = experts(rung.experts);
    this.find('.of').textContent = `of ${this.used} experts`;
    this.find('.share').textContent = percent(rung.compute_share);
    this.find('.loss').textContent = loss;
    this.find('.speed').textContent = speed(rung.tokens_per_s);
    this.range.setAttribute('aria-valuetext', `${experts(rung.experts)} of ${this.used} experts, ` +
      `${percent(rung.compute_share)} of the expert compute, expected loss ${loss}`);
    for (const level of this.find('.levels').children)
      level.setAttribute('aria-pressed', String(Number(level.dataset.point) === this.point));
    this.node.style.setProperty('--at', this.ladder.length > 1 ? this.range.value / this.range.max : 1);
    this.moveDot();
    this.onchange?.();
  }

  addLevels(levels) {
    for (const [name, point] of Object.entries(levels)) {
      const button = element('button', '', name);
      button.type = 'button';
      button.dataset.point = point;
      button.addEventListener('click', () => { this.point = point; });
      this.find('.levels').append(button);
    }
  }

  /* Loss over the slider's positions, cheapest at the left; nothing where nothing is measured. */
  drawCurve() {
    const losses = this.ladder.map(rung => rung.ppl_increase).reverse();
    const curve = this.find('.curve');
    this.heights = null;
    if (losses.length < 2 || !losses.every(known) || Math.max(...losses) <= 0) {
      curve.remove();
      return;
    }
    const most = Math.max(...losses);
    this.heights = losses.map(loss => HEIGHT * (1 - 0.9 * Math.max(0, loss) / most));
    const places = this.heights.map((y, i) => `${(WIDTH * i / (losses.length - 1)).toFixed(1)},${y.toFixed(1)}`);
    curve.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    curve.append(
      shape('path', {class: 'area', d: `M0,${HEIGHT} L${places.join(' L')} L${WIDTH},${HEIGHT} Z`}),
      shape('polyline', {class: 'edge', points: places.join(' ')}));
    const frame = element('div', 'curve-frame');
    curve.replaceWith(frame);
    this.dot = element('i', 'dot');
    frame.append(curve, this.dot, element('span', 'most soft', `up to ${increase(most)}`));
    frame.setAttribute('aria-hidden', 'true');
  }

  moveDot() {
    if (this.heights) this.dot.style.setProperty('--height', this.heights[Number(this.range.value)] / HEIGHT);
  }
}
