// Flags in a real browser against a server of its own: made, checked, saved, explained, edited, killed, revived, previewed, delegated,
// rolled out by a profile, and all of it is in the history. Clients ask by OFREP meanwhile, so that what the page says is held against what they get. How it is run:
// browser.mjs.
import { check, finish, link, must, origin, page, picture, stayedClean, token } from './browser.mjs';

const KEY = 'e2e.player';
const SUBJECTS = Array.from({ length: 200 }, (_, n) => `user-${n}`);
const DRAW_MS = 120;

const at = (id) => page.locator(`[data-testid="${id}"]`);
const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };

async function evaluate(key, subject, more = {}) {
  const body = JSON.stringify({ context: { targetingKey: subject, country: 'de', ...more } });
  return (await fetch(`${origin}/ofrep/v1/evaluate/flags/${key}`, { method: 'POST', headers, body })).json();
}

async function open(hash) {
  await page.evaluate((to) => (location.hash = to), hash);
}

/** Replaces in the editor's text; what is not there is a fault of the check. */
async function edit(from, to) {
  const text = await at('json-field').inputValue();
  must(text.includes(from), `the definition does not hold ${from}: ${text}`);
  await at('json-field').fill(text.replace(from, to));
}

async function reads(locator, pattern, otherwise) {
  await locator.first().waitFor({ timeout: 10_000 });
  for (let n = 0; n < 50; n++) {
    if (pattern.test(await locator.first().innerText())) return;
    await page.waitForTimeout(100);
  }
  throw new Error(`${otherwise}: ${await locator.first().innerText()}`);
}

/** What the editor says of a change; the page's head may still say what a button there did. */
const saved = () => page.locator('.editor [data-testid="change-result"]');

await check('without flags the list says what to do', async () => {
  await page.goto(link);
  await at('new-flag').or(page.getByRole('link', { name: 'Flags', exact: true })).first().waitFor({ timeout: 30_000 });
  await page.getByRole('link', { name: 'Flags', exact: true }).first().click();
  await page.getByText('No flag yet').waitFor({ timeout: 10_000 });
}, true);

await check('a segment is made', async () => {
  await open('#/new-segment?key=staff');
  await at('check').click();
  await at('save').click();
  await page.waitForURL((url) => url.hash === '#/segments/staff');
  await page.getByText('ends with').waitFor();
});

await check('a flag is made from a template', async () => {
  await open('#/flags');
  await at('new-flag').click();
  await at('new-key').fill(KEY);
  await at('template-percentage').check();
  await at('check').click();
  await at('checked').waitFor();
  await at('reason').fill('the first step');
  await picture('flag-new', DRAW_MS);
  await at('save').click();
  await page.waitForURL((url) => url.hash === `#/flags/${KEY}`);
  await at('flag-key').waitFor();
}, true);

let on = [];
await check('clients get it', async () => {
  const got = await Promise.all(SUBJECTS.map((subject) => evaluate(KEY, subject)));
  on = SUBJECTS.filter((_, n) => got[n].value === true);
  must(on.length > 0 && on.length < 30, `${on.length} of ${SUBJECTS.length} have it at 5 %`);
  for (const typo of [1, 2, 3]) await evaluate('e2e.playr', `user-${typo}`);
  return `${on.length} of ${SUBJECTS.length} have it`;
});

await check('the page explains the same', async () => {
  await page.getByRole('link', { name: 'Explain', exact: true }).click();
  for (const [subject, variant] of [[on[0], 'on'], [SUBJECTS.find((subject) => !on.includes(subject)), 'off']]) {
    await at('explain-subject').fill(subject);
    await at('explain-ask').click();
    await page.locator(`[data-testid="explanation"][data-variant="${variant}"]`).waitFor({ timeout: 5_000 });
    await reads(at('explanation'), new RegExp(`${subject} gets`), 'the answer is about somebody else');
  }
  await reads(at('explain-group'), /place \d+ of 100 for user-/, 'the place in hash space is not told');
  await picture('flag-explain', DRAW_MS);
});

await check('a mistake is told with its line', async () => {
  await page.getByRole('link', { name: 'Edit', exact: true }).click();
  await edit('"on": true,', '"on": yes,');
  await at('check').click();
  await reads(at('findings'), /line \d+ .*expected a value/s, 'broken JSON is not told');
  await edit('"on": yes,', '"on": true, "rissk": "low",');
  await at('check').click();
  await reads(at('findings'), /line \d+ .*\/rissk/s, 'an unknown key is not told');
  await picture('flag-findings', DRAW_MS);
  await edit(' "rissk": "low",', '');
});

await check('a jump is refused, and says how many it would move', async () => {
  await edit('[["on", 5], ["off", 95]]', '[["on", 60], ["off", 40]]');
  await at('check').click();
  await page.locator('[data-testid="checked"][data-refused="true"]').waitFor();
  await reads(at('impact'), /\d+\s% of \d+ users seen lately would change/, 'the impact is not told');
  must((await at('save').count()) === 0, 'it can be saved all the same');
  await at('break-glass').waitFor();
  await picture('flag-refused', DRAW_MS);
});

await check('a small step is checked and saved with its reason', async () => {
  await edit('[["on", 60], ["off", 40]]', '[["on", 7], ["off", 93]]');
  must((await at('checked').count()) === 0, 'what was checked before is shown for another text');
  await at('check').click();
  await page.locator('[data-testid="checked"][data-refused="false"]').waitFor();
  await at('reason').fill('the second step');
  await at('save').click();
  await saved().waitFor();
  const now = await Promise.all(SUBJECTS.map((subject) => evaluate(KEY, subject)));
  const more = SUBJECTS.filter((_, n) => now[n].value === true);
  must(more.length > on.length && on.every((subject) => more.includes(subject)), `${on.length} had it, ${more.length} have it`);
  return `${more.length} of ${SUBJECTS.length} have it`;
}, true);

const state = (word) => page.locator(`[data-testid="flag-state"][data-state="${word}"]`);

await check('killed with two clicks, no reason typed', async () => {
  await at('kill-button').click();
  await page.waitForTimeout(400);
  await at('kill-confirm').click();
  await state('killed').waitFor();
  must((await evaluate(KEY, on[0])).value === false, 'a client still has it');
  await picture('flag-killed', DRAW_MS);
});

await check('revived', async () => {
  await at('revive-button').click();
  await page.waitForTimeout(400);
  await at('revive-confirm').click();
  await state('on').waitFor();
  must((await evaluate(KEY, on[0])).value === true, 'a client does not have it again');
});

await check('what cannot wait goes through with the glass broken, and is to be reviewed', async () => {
  await page.getByRole('link', { name: 'Edit', exact: true }).click();
  await edit('[["on", 7], ["off", 93]]', '[["on", 100], ["off", 0]]');
  await at('check').click();
  await at('break-glass').click();
  must(await at('break-glass-confirm').isDisabled(), 'it needs no reason');
  await page.getByLabel('Why it cannot wait').fill('the old player is on fire');
  await at('break-glass-confirm').click();
  await saved().waitFor();
  await open('#/reviews');
  await reads(at('review'), /the old player is on fire/, 'it is not there');
  await at('review').getByRole('link', { name: KEY, exact: true }).waitFor();
  await picture('reviews', DRAW_MS);
});

await check('the history has all of it, with the differences', async () => {
  await open(`#/flags/${KEY}/history`);
  await at('history-entry').nth(4).waitFor();
  const actions = await at('history-entry').evaluateAll((rows) => rows.map((row) => row.dataset.action).join(' '));
  must(actions === 'flag.put flag.revive flag.kill flag.put flag.put', actions);
  const second = at('history-entry').nth(3);
  await reads(second, /the second step/, 'the reason is missing');
  await reads(second.locator('[data-testid="diff"]'), /"on", 5.*"on", 7/s, 'the difference is missing');
  await picture('flag-history', DRAW_MS);
  await second.getByRole('link', { name: 'as it was then' }).click();
  await at('past').waitFor();
  await reads(page.getByLabel('Definition'), /7\s%.*93\s%/s, 'this is not how it was');
});

await check('the list says what is served, and is searched', async () => {
  await open('#/flags');
  await reads(at('served'), /^on for all$/, 'it says something else');
  await at('search').fill('nothing like it');
  await page.getByText('No flag is like that').waitFor();
  await at('search').fill('PLAYER');
  await at('filter-kind').selectOption('release');
  must((await at('flag-row').count()) === 1, 'the flag is not found');
  must(page.url().includes('q=PLAYER') && page.url().includes('kind=release'), `the address is ${page.url()}`);
});

await check('a misspelled key is told, with what may be meant', async () => {
  await open('#/unknown-flags');
  await reads(at('unknown-flag'), /e2e\.playr.*3 times.*Is e2e\.player meant/s, 'it is not');
});

await check('one person is put on a variant with a link, for a while', async () => {
  await open(`#/flags/${KEY}/previews`);
  await at('preview-variant').selectOption('off');
  await at('preview-url').fill('https://shop.example/cart?x=1#top');
  await at('preview-make').click();
  await at('preview-made').waitFor();
  const made = await at('preview-link').inputValue();
  must(/^https:\/\/shop\.example\/cart\?x=1&sw-preview=swp_\w+#top$/.test(made), made);
  const preview = { 'sw-preview': new URL(made).searchParams.get('sw-preview') };
  must((await evaluate(KEY, 'user-1', preview)).value === false, 'who opens the link does not get the variant');
  must((await evaluate(KEY, 'user-2', preview)).value === true, 'a second person gets it too');
  await reads(at('preview-row'), /pre_\w+.*one person/s, 'it is not told whose it is');
  await picture('flag-previews', DRAW_MS);
  await at('preview-revoke').click();
  await page.getByText('None.', { exact: true }).waitFor();
  must((await evaluate(KEY, 'user-1', preview)).value === true, 'it counts although it was revoked');
});

await check('somebody sets the flag within bounds, and sees nothing else', async () => {
  await open(`#/flags/${KEY}/delegations`);
  await at('delegation-name').fill('Ann of support');
  await at('delegation-variant-off').check();
  await at('delegation-audience').selectOption('staff');
  await at('delegation-share').fill('50');
  await reads(at('delegation-bounds'), /Ann of support may serve “off”, to at most 50\s% of segment staff\./, 'the bounds are not told');
  await at('delegation-make').click();
  const holder = await (await page.context().browser().newContext()).newPage();
  const theirs = (id) => holder.locator(`[data-testid="${id}"]`);
  await holder.goto(await at('delegation-link').inputValue());
  await reads(theirs('held-bounds'), /“off”, to at most 50\s% of segment staff/, 'the holder is not told what he may do');
  must((await holder.getByRole('link').count()) === 0, 'the holder can go elsewhere');
  await theirs('held-share').fill('60');
  must(await theirs('held-set').isDisabled(), 'more than the bounds can be sent');
  await theirs('held-share').fill('40');
  await theirs('held-set').click();
  await reads(theirs('held-serves'), /“off” to 40\s% of segment staff/, 'what is set is not told');
  await holder.screenshot({ path: `${process.env.OUT_DIR ?? 'e2e-out'}/control-point.png` });
  await open('#/delegations');
  await reads(at('delegation-serves'), /“off” to 40\s% of segment staff/, 'the console does not say what is served');
  await theirs('held-clear').click();
  await theirs('held-clear-confirm').click();
  await reads(theirs('held-serves'), /^nothing/, 'it is not taken back');
  await picture('delegations', DRAW_MS);
  await at('delegation-revoke').click();
  await at('delegation-revoke-confirm').click();
  await page.getByText('Nothing is delegated').waitFor();
  await holder.context().close();
});

await check('a rollout profile is written; what is wrong with it is told with its line', async () => {
  await open('#/profiles');
  await page.getByText('No rollout profile yet').waitFor();
  await at('new-profile').click();
  await at('new-name').fill('e2e');
  const text = await at('json-field').inputValue();
  const { kpi: _, ...rest } = JSON.parse(text);
  const profile = { ...rest, owner: 'web', kpi: { success: "name = 'paid'", failure: "name = 'not paid'" }, acceptance: 'claire' };
  await at('json-field').fill(JSON.stringify({ ...profile, alpha: 2 }, null, 2));
  await at('save').click();
  await reads(at('findings'), /line \d+ .*\/alpha/s, 'a wrong number is not told');
  await at('json-field').fill(JSON.stringify(profile, null, 2));
  await at('save').click();
  await page.waitForURL((url) => url.hash === '#/profiles/e2e');
  await reads(at('profile-facts'), /name = 'paid'.*claire/s, 'it does not say what is watched');
  await picture('profile', DRAW_MS);
});

await check('with it a jump becomes a watched rollout, which says what it changes', async () => {
  await open(`#/flags/${KEY}/edit`);
  await edit('[["on", 100], ["off", 0]]', '[["on", 40], ["off", 60]]');
  await at('check').click();
  await reads(at('checked'), /watched rollout.*10\s%/s, 'the rollout and its stages are not told');
  await picture('flag-rollout', DRAW_MS);
  await at('save').click();
  await reads(saved(), /becomes a watched rollout/, 'it is not told');
  await saved().getByRole('link').first().click();
  await page.waitForURL((url) => url.hash.startsWith('#/experiments/exp_'));
  await page.locator('[data-testid="experiment-state"]').waitFor();
  await reads(at('changes').locator('[data-testid="diff"]'), /"on", 100.*"on", 40/s, 'the difference is missing');
});

await check('only who is asked says that it works as wanted', async () => {
  await reads(at('acceptance'), /Waits for claire/, 'it is not told who is asked');
  await at('as-wanted').click();
  await reads(at('acceptance').getByRole('alert'), /claire/, 'the remedy is missing');
  const asked = await fetch(`${origin}/api/v1/tokens`, { method: 'POST', headers, body: JSON.stringify({ name: 'claire', role: 'read' }) });
  const { secret } = await asked.json();
  const said = await fetch(page.url().replace('/#/', '/api/v1/') + '/accept', {
    method: 'POST', headers: { ...headers, authorization: `Bearer ${secret}` }, body: JSON.stringify({ as_wanted: true, reason: 'looked at it' }),
  });
  must(said.ok, `accepting answers ${said.status}`);
  await page.locator('[data-testid="acceptance"][data-said="true"]').waitFor();
  await reads(at('acceptance'), /Works as wanted.*looked at it/s, 'what was said is missing');
  await picture('experiment-rollout', DRAW_MS);
  await open(`#/flags/${KEY}`);
  await at('under-rollout').waitFor();
});

await check('killed from the list', async () => {
  await open('#/flags');
  await at('row-kill').click();
  await page.waitForTimeout(400);
  await picture('flags-kill', DRAW_MS);
  await at('row-kill-confirm').click();
  await page.locator('[data-testid="flag-row"]').getByText('Killed').waitFor();
  must((await at('row-kill').count()) === 0, 'it can be killed again');
  must((await evaluate(KEY, 'user-1')).value === false, 'a client still has it');
});

await check('nothing is wider than a phone', async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  const places = ['flags', `flags/${KEY}`, `flags/${KEY}/explain`, `flags/${KEY}/edit`, `flags/${KEY}/history`, 'new-flag', 'segments',
    'segments/staff', 'unknown-flags', 'reviews', `flags/${KEY}/previews`, `flags/${KEY}/delegations`, 'profiles', 'profiles/e2e',
    'profiles/e2e/edit', 'new-profile', 'delegations'];
  for (const place of places) {
    await open(`#/${place}`);
    await page.locator('main .panel').first().waitFor();
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    must(over <= 0, `${place} is ${over} px wider than the page`);
    await picture(`phone-${place.replaceAll(/[/.]/g, '-')}`, DRAW_MS);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
});

await stayedClean();
await finish();
