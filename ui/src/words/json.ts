// JSON as text for people: written so that short things stay on one line, read so that every part knows its place in
// the text, and two texts compared line by line. Pure.

/** Longer than this, a list or an object is broken into lines. */
const LINE_CHARS_MAX = 96;

/** The order in which docs/reference/flags.md tells of a definition's keys; the server gives them by alphabet. */
const ORDER = [
  'default', 'kind', 'state', 'risk', 'description', 'owner', 'tags', 'expires', 'flag', 'variants', 'on', 'off_variant', 'defaultVariant',
  'prerequisites', 'targets', 'rules', 'fallthrough', 'schedule', 'targeting', 'include', 'exclude', 'id', 'name', 'when', 'serve',
  'attr', 'op', 'values', 'negate', 'ignore_case', 'as', 'variant', 'subjects', 'from', 'to', 'at', 'share', 'steps', 'linear',
  'change', 'weights', 'ranges', 'total', 'by', 'salt', 'bucketing', 'missing', 'side', 'metadata', 'service', 'kpi', 'attempt', 'success',
  'failure', 'latency', 'stages', 'stage_min', 'baseline_ratio', 'window', 'settle', 'warm_up', 'min_exposures', 'min', 'max',
  'min_subjects', 'guardrails', 'alpha', 'margin', 'max_duration', 'acceptance',
];
const RANK = new Map(ORDER.map((name, n) => [name, n]));
/** Names in these are the user's own: they keep the alphabet. */
const OWN_NAMES = new Set(['variants', 'metadata']);

/** Two spaces an indent, known keys in the order of the reference. */
export function written(value: unknown): string {
  return lines(value, '', 0, false);
}

function lines(value: unknown, indent: string, used: number, own: boolean): string {
  const short = oneLine(value, own);
  if (typeof value !== 'object' || value === null || indent.length + used + short.length <= LINE_CHARS_MAX) {
    // The whole document, and what has parts of its own, is easier to read in lines even if it would fit.
    if (indent !== '' || typeof value !== 'object' || value === null || Object.keys(value).length === 0) return short;
  }
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    return `[\n${value.map((item) => inner + lines(item, inner, 1, false)).join(',\n')}\n${indent}]`;
  }
  const parts = entriesOf(value as Record<string, unknown>, own).map(([name, item]) => {
    const label = `${JSON.stringify(name)}: `;
    return inner + label + lines(item, inner, label.length + 1, OWN_NAMES.has(name));
  });
  return `{\n${parts.join(',\n')}\n${indent}}`;
}

function oneLine(value: unknown, own: boolean): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map((item) => oneLine(item, false)).join(', ')}]`;
  const parts = entriesOf(value as Record<string, unknown>, own);
  if (parts.length === 0) return '{}';
  return `{${parts.map(([name, item]) => `${JSON.stringify(name)}: ${oneLine(item, OWN_NAMES.has(name))}`).join(', ')}}`;
}

function entriesOf(value: Record<string, unknown>, own: boolean): [string, unknown][] {
  const entries = Object.entries(value);
  if (own) return entries;
  const rank = (name: string) => RANK.get(name) ?? ORDER.length;
  return entries.toSorted(([a], [b]) => rank(a) - rank(b));
}

/** Where something stands in a text: offsets, and the line it begins in, counted from 1. */
export interface Span {
  from: number;
  below: number;
  line: number;
}

export interface Reading {
  /** By JSON pointer, written as the server writes it: names are not escaped. The whole is "". */
  places: Map<string, Span>;
  /** Why it is no JSON, and where; null if it is. */
  fault: (Span & { reason: string }) | null;
}

/** Deeper than any definition may be. */
const DEPTH_MAX = 200;

/** Reads JSON only for its places; what stands before a fault has them too. */
export function placesOf(text: string): Reading {
  const places = new Map<string, Span>();
  let at = 0;

  class Fault extends Error {}

  const skip = () => {
    while (at < text.length && ' \n\r\t'.includes(text.charAt(at))) at += 1;
  };
  const expected = (what: string): never => {
    throw new Fault(at >= text.length ? `the text ends where ${what} is expected` : `expected ${what}`);
  };
  const string = (): string => {
    const found = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
    found.lastIndex = at;
    const match = found.exec(text)?.[0] ?? expected('text in double quotes');
    at += match.length;
    return JSON.parse(match) as string;
  };
  const value = (pointer: string, depth: number) => {
    if (depth > DEPTH_MAX) throw new Fault(`deeper than ${DEPTH_MAX} levels`);
    skip();
    const from = at;
    const first = text.charAt(at);
    if (first === '{') {
      at += 1;
      skip();
      const names = new Set<string>();
      for (let n = 0; text.charAt(at) !== '}'; n++) {
        if (n > 0) {
          if (text.charAt(at) !== ',') expected('a comma or }');
          at += 1;
          skip();
        }
        const began = at;
        if (text.charAt(at) !== '"') expected('a name in double quotes');
        const name = string();
        if (names.has(name)) {
          at = began;
          throw new Fault(`${JSON.stringify(name)} is there twice`);
        }
        names.add(name);
        skip();
        if (text.charAt(at) !== ':') expected('a colon');
        at += 1;
        value(`${pointer}/${name}`, depth + 1);
        skip();
      }
      at += 1;
    } else if (first === '[') {
      at += 1;
      skip();
      for (let n = 0; text.charAt(at) !== ']'; n++) {
        if (n > 0) {
          if (text.charAt(at) !== ',') expected('a comma or ]');
          at += 1;
        }
        value(`${pointer}/${n}`, depth + 1);
        skip();
      }
      at += 1;
    } else if (first === '"') {
      string();
    } else {
      const word = /true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
      word.lastIndex = at;
      at += (word.exec(text)?.[0] ?? expected('a value')).length;
    }
    places.set(pointer, { from, below: at, line: 0 });
  };

  let fault: Reading['fault'] = null;
  try {
    value('', 0);
    skip();
    if (at < text.length) throw new Fault('something follows the end');
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    fault = { from: at, below: Math.min(at + 1, text.length), line: 0, reason: error.message };
  }
  const lineOf = lineCounter(text);
  for (const span of places.values()) span.line = lineOf(span.from);
  if (fault) fault.line = lineOf(fault.from);
  return { places, fault };
}

/** The place itself, or the nearest around it that is there (what is missing stands nowhere). */
export function nearest(reading: Reading, pointer: string): Span | undefined {
  for (let at = pointer; at !== ''; at = at.slice(0, at.lastIndexOf('/'))) {
    const span = reading.places.get(at);
    if (span) return span;
  }
  return reading.places.get('');
}

function lineCounter(text: string): (offset: number) => number {
  const starts = [0];
  for (let n = text.indexOf('\n'); n >= 0; n = text.indexOf('\n', n + 1)) starts.push(n + 1);
  return (offset) => {
    let [low, high] = [0, starts.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  };
}

/** The part of a value that a pointer names; undefined where there is none. */
export function partAt(value: unknown, pointer: string): unknown {
  let part = value;
  for (const name of pointer.split('/').slice(1)) {
    if (typeof part !== 'object' || part === null) return undefined;
    part = (part as Record<string, unknown>)[name];
  }
  return part;
}

/** Whether a browser's numbers lose digits of it. */
export function losesDigits(value: unknown): boolean {
  if (typeof value === 'number') return Number.isInteger(value) && !Number.isSafeInteger(value);
  return typeof value === 'object' && value !== null && Object.values(value).some(losesDigits);
}

export interface DiffLine {
  sign: ' ' | '+' | '-';
  text: string;
}

/** More cells than this are not compared; the middle is then told as removed and added. */
const CELLS_MAX = 4_000_000;

/** What is different, line by line (longest common subsequence). */
export function difference(before: string, after: string): DiffLine[] {
  const [a, b] = [before === '' ? [] : before.split('\n'), after === '' ? [] : after.split('\n')];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const same = (texts: string[]) => texts.map((text): DiffLine => ({ sign: ' ', text }));
  const middle = changed(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return [...same(a.slice(0, head)), ...middle, ...same(tail > 0 ? a.slice(-tail) : [])];
}

function changed(a: string[], b: string[]): DiffLine[] {
  const [rows, columns] = [a.length, b.length];
  if (rows * columns > CELLS_MAX) {
    return [...a.map((text): DiffLine => ({ sign: '-', text })), ...b.map((text): DiffLine => ({ sign: '+', text }))];
  }
  const width = columns + 1;
  const common = new Uint32Array((rows + 1) * width);
  const cell = (row: number, column: number) => common[row * width + column] ?? 0;
  for (let row = rows - 1; row >= 0; row--) {
    for (let column = columns - 1; column >= 0; column--) {
      common[row * width + column] =
        a[row] === b[column] ? cell(row + 1, column + 1) + 1 : Math.max(cell(row + 1, column), cell(row, column + 1));
    }
  }
  const out: DiffLine[] = [];
  let [row, column] = [0, 0];
  while (row < rows || column < columns) {
    if (row < rows && column < columns && a[row] === b[column]) {
      out.push({ sign: ' ', text: a[row++] ?? '' });
      column += 1;
    } else if (row < rows && (column === columns || cell(row + 1, column) >= cell(row, column + 1))) {
      out.push({ sign: '-', text: a[row++] ?? '' });
    } else {
      out.push({ sign: '+', text: b[column++] ?? '' });
    }
  }
  return out;
}

/** Only lines near a change, in runs; `skipped` lines stand before each run. */
export function hunks(lines: DiffLine[], around = 3): { skipped: number; lines: DiffLine[] }[] {
  const keep = lines.map(() => false);
  lines.forEach((line, n) => {
    if (line.sign !== ' ') for (let m = Math.max(0, n - around); m <= Math.min(lines.length - 1, n + around); m++) keep[m] = true;
  });
  const runs: { skipped: number; lines: DiffLine[] }[] = [];
  let skipped = 0;
  lines.forEach((line, n) => {
    if (!keep[n]) return void (skipped += 1);
    if (skipped > 0 || runs.length === 0) runs.push({ skipped, lines: [] });
    runs.at(-1)?.lines.push(line);
    skipped = 0;
  });
  return runs;
}
