// The words in which two answers differ, marked without touching the page (CSS custom highlights).

const MAX_CELLS = 4_000_000;
export const supported = Boolean(globalThis.CSS?.highlights && globalThis.Highlight);

/** [{word, node, start}, …] of an element's text, in reading order. */
function words(element) {
  const found = [];
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (const match of node.data.matchAll(/[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu)) {
      // Writing without spaces is compared by character.
      const pieces = /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}]/u.test(match[0]) ? [...match[0]] : [match[0]];
      let start = match.index;
      for (const word of pieces) { found.push({ word, node, start }); start += word.length; }
    }
  }
  return found;
}

/** Which of `a` and of `b` belong to no longest common subsequence: two lists of booleans. */
export function differing(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const n = a.length - head - tail, m = b.length - head - tail;
  const only = [a.map((_, i) => i >= head && i < head + n), b.map((_, i) => i >= head && i < head + m)];
  if (n * m > MAX_CELLS) {
    // Too long for the table: a word counts as common wherever the other text has it at all.
    const [inA, inB] = [new Set(a), new Set(b)];
    return [only[0].map((on, i) => on && !inB.has(a[i])), only[1].map((on, i) => on && !inA.has(b[i]))];
  }
  const width = m + 1, table = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i -= 1) for (let j = m - 1; j >= 0; j -= 1) {
    table[i * width + j] = a[head + i] === b[head + j]
      ? table[(i + 1) * width + j + 1] + 1
      : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  }
  for (let i = 0, j = 0; i < n && j < m;) {
    if (a[head + i] === b[head + j]) { only[0][head + i] = only[1][head + j] = false; i += 1; j += 1; }
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return only;
}

/** Mark them in both elements; returns how many differ. */
export function mark(left, right) {
  const sides = [words(left), words(right)];
  const only = differing(...sides.map((side) => side.map((each) => each.word)));
  const ranges = sides.flatMap((side, k) => side.filter((_, i) => only[k][i]).map(({ word, node, start }) => {
    const range = new Range();
    range.setStart(node, start);
    range.setEnd(node, start + word.length);
    return range;
  }));
  CSS.highlights.set("differs", new Highlight(...ranges));
  return ranges.length;
}

export const clear = () => CSS.highlights?.delete("differs");
