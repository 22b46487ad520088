/* Numbers in the reader's words, with units that stay with them. The server's null means "not measured". */

const number = (value, digits) => new Intl.NumberFormat('en', {maximumSignificantDigits: digits, useGrouping: true})
  .format(value);

export const known = value => typeof value === 'number' && Number.isFinite(value);

/* 2.25, 8, 0.5 */
export const experts = value => (known(value) ? String(Math.round(value * 100) / 100) : '?');

/* 0.28125 -> 28 % */
export const percent = value => (known(value) ? `${number(value * 100, value < 0.0995 ? 2 : 3)}\u00a0%` : '?');

/* An increase of perplexity: 0.013 -> +1.3 %. */
export function increase(value) {
  if (!known(value)) return 'not measured';
  const rounded = Math.round(value * 1000) / 10;
  if (rounded === 0) return 'none';
  return `${rounded > 0 ? '+' : '−'}${Math.abs(rounded)}\u00a0%`;
}

export function milliseconds(value) {
  if (!known(value)) return '?';
  return value >= 999.5 ? `${number(value / 1000, 3)}\u00a0s` : `${number(value, value < 10 ? 2 : 3)}\u00a0ms`;
}

/* tokens a second */
export const speed = value => (known(value) ? `${number(value, value < 10 ? 2 : 3)}\u00a0tokens/s` : 'not measured');

export const count = (n, one, many = `${one}s`) => `${number(n, 12)}\u00a0${n === 1 ? one : many}`;

/* <tag class=name>, with text or children. The only way this page makes elements: text stays text. */
export function element(tag, name = '', ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
}

/* The same for SVG, by attributes. */
export function shape(tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
