// What the console says in words, held against examples. `npm test`; Vite turns the TypeScript into something node runs.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createServer } from 'vite';

const vite = await createServer({
  configFile: false,
  root: new URL('..', import.meta.url).pathname,
  appType: 'custom',
  logLevel: 'error',
  server: { middlewareMode: true, ws: false, watch: null },
  optimizeDeps: { noDiscovery: true },
});
after(() => vite.close());
const json = await vite.ssrLoadModule('/src/words/json.ts');
const flags = await vite.ssrLoadModule('/src/words/flags.ts');
const explain = await vite.ssrLoadModule('/src/words/explain.ts');
const states = await vite.ssrLoadModule('/src/words/state.ts');
const access = await vite.ssrLoadModule('/src/words/access.ts');
const profiles = await vite.ssrLoadModule('/src/words/profiles.ts');

/** Spaces that do not break count as spaces. */
const plain = (text) => text.replaceAll('\u00a0', ' ');
const NOW = Date.parse('2026-12-01T12:00:00Z');

test('conditions', () => {
  const cases = [
    [true, 'everybody'],
    [{ attr: 'country', op: 'in', values: ['de'] }, 'country is de'],
    [{ attr: 'country', op: 'in', values: ['de', 'at', 'ch'], negate: true }, 'country is not de, at nor ch (if it is there)'],
    [{ attr: ['account', 'targetingKey'], op: 'starts_with', values: ['x'], ignore_case: true }, 'account or else the subject begins with x (in any case)'],
    [{ attr: 'app.version', op: 'semver_gte', values: ['4.2'] }, 'app.version is a version from 4.2'],
    [{ attr: 'beta', op: 'exists', negate: true }, 'beta is not there'],
    [{ attr: 'n', op: 'in', values: [1, 2, 3, 4, 5, 6, 7, 8] }, 'n is 1, 2, 3, 4, 5, 6 or 2 more'],
    [{ all: [{ segment: 'staff' }, { any: [{ flag: 'a', variants: ['x', 'y'] }, { not: { segment: 'b' } }] }] },
      'in segment staff and (flag a gives x or y or not (in segment b))'],
    [{ bucket: { ranges: [[0, 10]], total: 40, salt: 's' } }, 'in the 25 % at places 0 to 10 of 40 (salt "s")'],
    [{ all: [] }, 'everybody'],
    [{ any: [] }, 'nobody'],
  ];
  for (const [condition, words] of cases) assert.equal(plain(flags.textOf(flags.conditionInWords(condition))), words);
});

test('what is served', () => {
  const flag = { key: 'k', state: 'ENABLED', dialect: 'seaworthy', variants: {}, default_variant: null, experiment: null };
  const served = (definition, more = {}) => plain(flags.servedInWords({ ...flag, ...more }, { on: true, ...definition }, NOW));
  const ramp = { from: 'off', to: 'on', steps: [{ at: '2026-12-01T00:00:00Z', share: 0.1 }, { at: '2026-12-02T00:00:00Z', share: 0.5 }] };
  assert.equal(served({ fallthrough: 'on' }), 'on for all');
  assert.equal(served({}), 'code default for all');
  assert.equal(served({ on: false, off_variant: 'off' }), 'off: “off” for all');
  assert.equal(served({ on: false }), 'off: code default');
  assert.equal(served({ rules: [{}, {}, {}], fallthrough: { split: { weights: [['on', 10], ['off', 90]] } } }), '3 rules, then 10 % on / 90 % off');
  assert.equal(served({ fallthrough: { split: { weights: [['on', 100], ['off', 0]] } } }), 'on for all');
  assert.equal(served({ fallthrough: { split: { weights: [['on', 10]], total: 40 } } }), '25 % on / 75 % code default');
  assert.equal(served({ fallthrough: { ramp } }), 'ramp to on, 10 % now');
  assert.equal(served({ fallthrough: { ramp: { ...ramp, linear: true } } }), 'ramp to on, 30 % now');
  assert.equal(served({ fallthrough: 'a', schedule: [{ at: '2026-11-01T00:00:00Z', change: { fallthrough: 'b' } }, { at: '2027-01-01T00:00:00Z', change: { fallthrough: 'c' } }] }), 'b for all');
  assert.equal(served({ fallthrough: 'a' }, { promoted: 'b' }), 'b for all (promoted)');
  const theirs = { ...flag, dialect: 'flagd', default_variant: 'off', targeting: { if: [] } };
  assert.equal(flags.servedInWords(theirs, { state: 'ENABLED' }, NOW), 'targeting, then off');
  assert.equal(flags.servedInWords({ ...theirs, state: 'DISABLED' }, undefined, NOW), 'off: code default');
});

test('findings in the sentence of a refusal', () => {
  const detail = 'flag "a/b": /on: expected true or false; /rules/0/when: unknown key; expected all, any; and 3 more';
  assert.deepEqual(flags.findingsOf(detail, 'flag', 'a/b'), {
    findings: [
      { place: '/on', reason: 'expected true or false' },
      { place: '/rules/0/when', reason: 'unknown key; expected all, any' },
    ],
    more: 'and 3 more',
  });
  const tangled = '/flags/a: needs the segment "zz", which does not exist';
  assert.deepEqual(flags.findingsOf(tangled, 'flag', 'a').findings, [{ place: '', reason: 'needs the segment "zz", which does not exist' }]);
});

test('findings that a refusal lists', () => {
  const list = [
    { place: '/flags/a/rules/0', reason: 'unknown key' },
    { place: '/flags/a', reason: 'expected an object' },
    { place: '/flags/ab/on', reason: 'another flag' },
  ];
  assert.deepEqual(flags.findingsIn(list, 'flag', 'a').map(({ place }) => place), ['/rules/0', '', '/flags/ab/on']);
  const detail = 'stages: a later stage must not be smaller: nobody falls out; guardrails.failures: expected 0.5 to 1';
  assert.deepEqual(profiles.profileFindings(detail), [
    { place: '/stages', reason: 'a later stage must not be smaller: nobody falls out' },
    { place: '/guardrails/failures', reason: 'expected 0.5 to 1' },
  ]);
  assert.deepEqual(profiles.profileFindings('missing field `failure`'), []);
});

test('changes of a rollout', () => {
  const cases = [
    [[{ put: { key: 'player', definition: {} } }], 'flag player changes'],
    [[{ delete: 'player' }], 'flag player goes'],
    [[{ revive: 'player' }], 'flag player comes back'],
    [[{ put_segment: { key: 'staff', definition: {} } }], 'segment staff changes'],
    [[{ put: { key: 'a' } }, { delete: 'b' }, { revive: 'c' }, { delete_segment: 's' }], '3 flags and 1 segment change'],
    [[{ put: { key: 'a' } }, { put: { key: 'b' } }], '2 flags change'],
  ];
  for (const [changes, words] of cases) assert.equal(states.treatmentInWords({ treatment: { flags: changes }, kind: 'flag' }), words);
});

test('what a profile says, and for whom', () => {
  const stages = (definition) => plain(profiles.stagesInWords(definition));
  assert.equal(stages({}), 'as the risk of the flag allows, at least 5m each');
  assert.equal(stages({ stages: [{ share: '1%', min: '10m' }, { share: 0.05, min: 60000 }] }), '1 % for 10m, then 5 % for 60000 ms');
  const definitions = [['a', {}], ['b', { metadata: { profile: 'x' } }], ['c', { metadata: { profile: 'y' } }]];
  assert.deepEqual(profiles.goesBy({ name: 'x', default: false }, definitions), { named: ['b'], others: 0 });
  assert.deepEqual(profiles.goesBy({ name: 'x', default: true }, definitions), { named: ['b'], others: 1 });
});

test('a preview link keeps the page', () => {
  const cases = [
    ['https://a.example/p', 'https://a.example/p?sw-preview=t'],
    ['https://a.example/p?x=1#y?z', 'https://a.example/p?x=1&sw-preview=t#y?z'],
    ['', 't'],
  ];
  for (const [page, link] of cases) assert.equal(access.previewLink(page, 't'), link);
});

test('delegations', () => {
  const bounds = (more) => plain(access.boundsInWords({ flag: 'f', largest_share: 1, ...more }));
  assert.equal(bounds({ variants: ['on'] }), '“on”, to everybody');
  assert.equal(
    bounds({
      variants: ['a', 'b'], values: { between: [5, 20] }, audience: 'staff', largest_share: 0.1,
      hours: { from: '09:00', to: '17:30', days: ['mon', 'tue', 'wed', 'thu', 'fri'], utc_offset_minutes: 330 },
    }),
    '“a”, “b” or a number from 5 to 20, to at most 10 % of segment staff, Monday to Friday from 09:00 to 17:30, UTC+05:30',
  );
  assert.equal(
    access.hoursInWords({ from: '22:00', to: '06:00', days: ['sat', 'mon'], utc_offset_minutes: -60 }),
    'Monday, Saturday from 22:00 to 06:00 the next day, UTC−01:00',
  );
  const served = (rule, variants = {}) => plain(access.servedByHolder(rule, variants));
  assert.equal(served(null), 'nothing');
  assert.equal(served({ when: true, serve: 'on' }), '“on” to everybody');
  const when = { all: [{ segment: 'staff' }, { bucket: { ranges: [[0, 50000]], total: 1000000, salt: 's' } }] };
  assert.equal(served({ when, serve: 'delegation-tok_1' }, { 'delegation-tok_1': 7 }), '7 to 5 % of segment staff');
});

test('impact', () => {
  const impact = { key: 'a', subjects: 8311, changed: 997, safer: 0, asked_lately: true };
  const words = (more, done = false) => plain(flags.impactInWords({ ...impact, ...more }, done));
  assert.equal(words({}), '12 % of 8,311 users seen lately would change.');
  assert.equal(words({ changed: 0, safer: 8311 }), 'None of 8,311 users seen lately would change; 100 % would get the off value.');
  assert.equal(words({ changed: 8311 }, true), 'All of 8,311 users seen lately changed.');
  assert.equal(words({ asked_lately: false }), 'Nobody asked for it lately, so nobody would change.');
});

test('what a definition needs', () => {
  const needs = flags.needsOf({
    prerequisites: [{ flag: 'p', variants: ['on'] }],
    rules: [{ when: { all: [{ segment: 's' }, { flag: 'f', variants: ['x'] }] }, serve: 'on' }],
    schedule: [{ at: '…', change: { rules: [{ when: { not: { segment: 't' } }, serve: 'on' }] } }],
    variants: { on: { segment: 'no' } },
  });
  assert.deepEqual([[...needs.flags], [...needs.segments]], [['p', 'f'], ['s', 't']]);
});

test('an explanation is grouped by the parts of the definition', () => {
  const definition = {
    on: true,
    rules: [{ id: 'staff', when: { segment: 'staff' }, serve: 'on' }, { when: true, serve: { split: { weights: [['on', 1], ['off', 1]] } } }],
  };
  const steps = [
    { at: '/when', holds: false, within: 'segment staff' },
    { at: '/rules/0/when', holds: false },
    { at: '/rules/0', holds: false },
    { at: '/rules/1/when', holds: true },
    { at: '/rules/1', holds: true },
    { unit: 'ann', bucketing: 'native-1', salt: 'k', place: 1, of: 2 },
    { at: '/rules/1/serve/split', range: [1, 2] },
  ];
  const groups = explain.groupsOf(steps, definition);
  assert.deepEqual(
    groups.map(({ title, holds, asked, placed }) => [flags.textOf(title), holds, asked.length, placed.length]),
    [['Rule 1, staff', false, 2, 0], ['Rule 2', true, 1, 2]],
  );
  assert.equal(flags.textOf(explain.stepInWords(steps[5], null)), 'place 1 of 2 for ann (native-1, salt "k")');
  // A subject without a place goes on to what comes next; the note belongs to the split.
  const without = explain.groupsOf([...steps.slice(0, 5), { note: 'the context has no unit to place' }, { at: '/fallthrough', holds: true }], definition);
  assert.deepEqual(without.map(({ placed }) => placed.length), [0, 1, 0]);
});

test('JSON keeps its places, and a fault has one', () => {
  const text = '{\n  "rules": [\n    {"when": true}\n  ],\n  "a/b": 1\n}';
  const reading = json.placesOf(text);
  assert.equal(reading.fault, null);
  assert.equal(reading.places.get('/rules/0/when').line, 3);
  assert.equal(reading.places.get('/a/b').line, 5);
  assert.equal(json.nearest(reading, '/rules/0/serve').line, 3);
  const fault = (broken) => json.placesOf(broken).fault;
  assert.deepEqual([fault('{"a": 1,\n}').line, fault('{"a": 1,\n}').reason], [2, 'expected a name in double quotes']);
  assert.equal(fault('{"a": 1, "a": 2}').reason, '"a" is there twice');
  assert.equal(fault('{"a": ').reason, 'the text ends where a value is expected');
  assert.equal(fault('[1] 2').reason, 'something follows the end');
  assert.match(fault('['.repeat(1000)).reason, /deeper/);
});

test('what is read as JSON is what JSON.parse takes', () => {
  const seed = Number(process.env.SEED ?? 20261125);
  let state = seed;
  const random = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const parts = ['{', '}', '[', ']', ',', ':', '"a"', '"b\\n"', '"\\q"', '1', '-0.5e3', '01', 'true', 'null', 'nul', ' ', '\n', '"'];
  for (let n = 0; n < 20_000; n++) {
    const text = Array.from({ length: 1 + random(7) }, () => parts[random(parts.length)]).join('');
    const { fault } = json.placesOf(text);
    if (fault?.reason.endsWith('is there twice')) continue;
    let taken = true;
    try {
      JSON.parse(text);
    } catch {
      taken = false;
    }
    assert.equal(fault === null, taken, `seed ${seed}: ${JSON.stringify(text)}`);
  }
});

test('what is written is the same value, short things on one line', () => {
  const value = { on: true, kind: 'ops', rules: [{ serve: 'on', when: { segment: 's' } }], variants: { z: 1, a: { deep: [1, 'x'.repeat(100)] } } };
  const text = json.written(value);
  assert.deepEqual(JSON.parse(text), value);
  assert.equal(text.split('\n')[1], '  "kind": "ops",');
  assert.ok(text.includes('"rules": [{"when": {"segment": "s"}, "serve": "on"}]'), text);
});

test('a difference is small, and leads from one text to the other', () => {
  const [a, b] = ['a\nb\nc\nd', 'a\nx\nc\nd\ne'];
  const lines = json.difference(a, b);
  assert.deepEqual(lines.map(({ sign, text }) => sign + text), [' a', '-b', '+x', ' c', ' d', '+e']);
  const side = (leave) => lines.filter(({ sign }) => sign !== leave).map(({ text }) => text).join('\n');
  assert.deepEqual([side('+'), side('-')], [a, b]);
  assert.deepEqual(json.difference(a, a).filter(({ sign }) => sign !== ' '), []);
  const long = Array.from({ length: 20 }, (_, n) => `line ${n}`);
  const runs = json.hunks(json.difference(long.join('\n'), long.with(10, 'new').join('\n')));
  assert.deepEqual(runs.map(({ skipped, lines }) => [skipped, lines.length]), [[7, 8]]);
});
