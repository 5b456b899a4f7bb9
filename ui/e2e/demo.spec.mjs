// The console in a real browser against a running demo (or the mock): an experiment is seen under way, stops itself,
// and the page says who was hurt. How it is run: browser.mjs.
import { check, finish, link, must, page, picture, stayedClean } from './browser.mjs';

/** A stopped experiment must be seen within this time of opening it. */
const STOP_MS = 90_000;
const CAUSES = ['app.version', 'device'];

const state = (...names) => names.map((name) => `[data-testid="experiment-state"][data-state="${name}"]`).join(', ');

await check('the log-in link opens the console and leaves the address bar', async () => {
  await page.goto(link);
  await page.locator('[data-testid="experiment-card"]').first().waitFor({ timeout: 30_000 });
  must(!page.url().includes('token'), `the address still holds the token: ${page.url()}`);
  return `${await page.locator('[data-testid="experiment-card"]').count()} experiment cards`;
}, true);

const fault = page.locator('[data-testid="experiment-card"][data-kind="fault"]').first();
await check('the overview has a fault experiment', async () => {
  await fault.waitFor({ timeout: 30_000 });
  await picture('overview-live');
  const id = await fault.getAttribute('data-experiment-id');
  await fault.locator('h2 a').click();
  await page.waitForURL((url) => url.hash === `#/experiments/${id}`);
  return id;
}, true);

await check('it is seen under way', async () => {
  const word = page.locator(state('warm-up', 'running'));
  await word.waitFor({ timeout: 30_000 });
  must((await page.locator('[data-testid="stop-button"]').count()) > 0, 'there is no stop button');
  return word.getAttribute('data-state');
});

await check('evidence and KPI are drawn', async () => {
  const charts = ['evidence-chart', 'kpi-chart'];
  for (const chart of charts) await page.locator(`[data-testid="${chart}"] canvas`).first().waitFor({ timeout: 15_000 });
  await picture('experiment-live');
  return charts.join(' and ');
});

await check('it stops itself', async () => {
  const word = page.locator(state('stopped'));
  await word.waitFor({ timeout: STOP_MS });
  return (await word.innerText()).replaceAll('\n', ' ');
});

await check('the comparison names who was hurt', async () => {
  const rows = page.locator('[data-testid="comparison-row"]');
  await rows.nth(1).waitFor({ timeout: 30_000 });
  const names = async () => Promise.all([0, 1].map((n) => rows.nth(n).getAttribute('data-attribute')));
  // The ranking may still move for a moment after the stop, while late windows settle.
  let first = await names();
  for (let n = 0; n < 10 && first.toSorted().join() !== CAUSES.join(); n++) {
    await page.waitForTimeout(1000);
    first = await names();
  }
  must(first.toSorted().join() === CAUSES.join(), `the first two rows are ${first.join(' and ')}`);
  return first.join(', ');
});
await check('the stopped experiment is pictured', async () => {
  // A few seconds on, so that the curves show what came after the stop.
  await page.waitForTimeout(6000);
  await picture('experiment');
});

await check('the audit view has rows', async () => {
  await page.getByRole('link', { name: 'Audit', exact: true }).click();
  const rows = page.locator('[data-testid="audit-row"]');
  await rows.first().waitFor({ timeout: 15_000 });
  await rows.first().getByRole('button').click();
  await picture('audit');
  return `${await rows.count()} rows`;
});

await check('the overview says stopped too', async () => {
  await page.getByRole('link', { name: 'Experiments', exact: true }).click();
  await page.locator('[data-testid="experiment-card"][data-state="stopped"]').first().waitFor({ timeout: 15_000 });
  await picture('overview');
});

await stayedClean();
await finish();
