/* Shows a growing text: paragraphs, fenced code, inline code and bold, built as nodes, never as markup, so that nothing
 * a model says can become part of the page. Blocks that did not change keep their nodes: a long answer grows without
 * being rebuilt, and a selection in it survives. */
import {element} from './format.js';

const FENCE = /^\s*```\s*(\S*)\s*$/;

/* Text into blocks: {code, text, language}. A fence that is not closed yet is code to the end. */
export function blocks(text) {
  const found = [];
  let open = null;
  const close = () => {
    if (open?.code || open?.lines.length) found.push({...open, text: open.lines.join('\n')});
    open = null;
  };
  for (const line of text.split('\n')) {
    const fence = FENCE.exec(line);
    if (fence) {
      const ends = open?.code;
      close();
      if (!ends) open = {code: true, language: fence[1], lines: []};
    } else if (!open?.code && !line.trim()) {
      close();
    } else {
      open ??= {code: false, lines: []};
      open.lines.push(line);
    }
  }
  close();
  return found;
}

/* `code` and **bold** inside a paragraph. */
function* inline(text) {
  let from = 0;
  for (const match of text.matchAll(/`([^`\n]+)`|\*\*([^*\n]+)\*\*/g)) {
    if (match.index > from) yield text.slice(from, match.index);
    yield match[1] !== undefined ? element('code', '', match[1]) : element('strong', '', match[2]);
    from = match.index + match[0].length;
  }
  if (from < text.length) yield text.slice(from);
}

function node(block) {
  if (!block.code) return element('p', '', ...inline(block.text));
  const code = element('pre', '', element('code', '', block.text));
  code.tabIndex = 0; /* it may scroll sideways, so the keyboard must reach it */
  if (block.language) code.dataset.language = block.language;
  return code;
}

export class Flow {
  constructor(place) {
    this.place = place;
    this.clear();
  }

  clear() {
    this.text = '';
    this.shown = [];
    this.place.replaceChildren();
  }

  append(text) {
    this.text += text;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => this.show());
  }

  /* At once, as at the end, when no frame may come: a tab in the background has none. */
  show() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const now = blocks(this.text.trimStart());
    now.forEach((block, i) => {
      const was = this.shown[i];
      if (was && was.code === block.code && was.text === block.text) return;
      const fresh = node(block);
      if (was) this.place.children[i].replaceWith(fresh);
      else this.place.append(fresh);
    });
    while (this.place.children.length > now.length) this.place.lastChild.remove();
    this.shown = now;
    this.onshow?.();
  }
}
