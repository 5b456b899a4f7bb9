// The console in a real browser against a running demo (or the mock): an experiment is seen under way, stops itself,
// and the page says who was hurt. Plain node. CONSOLE_URL is the log-in link, OUT_DIR takes screenshots, CHROMIUM names
// the browser. Exits 0 when every check passed, 1 otherwise; the last line is `N passed, N failed`.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const { CONSOLE_URL, OUT_DIR = 'e2e-out', CHROMIUM = '/usr/bin/chromium' } = process.env;
if (!CONSOLE_URL) {
  console.error('CONSOLE_URL is not set: give it the log-in link the server prints (http://…/#token=sw_…)');
  process.exit(1);
}
mkdirSync(OUT_DIR, { recursive: true });

/** A stopped experiment must be seen within this time of opening it. */
const STOP_MS = 90_000;
const CAUSES = ['app.version', 'device'];

let passed = 0;
let failed = 0;

/** Runs one check; later ones still run when it fails, unless they `need` it. */
async function check(name, run, need = false) {
  const start_ms = Date.now();
  try {
    const seen = await run();
    passed += 1;
    console.log(`ok    ${name}${seen ? `: ${seen}` : ''} (${((Date.now() - start_ms) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${error.message.split('\n')[0]}`);
    if (need) await finish();
  }
}

async function finish() {
  await browser.close();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

function must(truth, otherwise) {
  if (!truth) throw new Error(otherwise);
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
  ],
});
const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
const origin = new URL(CONSOLE_URL).origin;
const foreign = new Set();
const broken = [];
page.on('request', (request) => {
  if (!request.url().startsWith(origin)) foreign.add(request.url());
});
page.on('pageerror', (error) => broken.push(error.message));
page.on('console', (message) => {
  if (/content security policy/i.test(message.text())) broken.push(message.text());
});

const state = (...names) => names.map((name) => `[data-testid="experiment-state"][data-state="${name}"]`).join(', ');

async function picture(name) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(400);
    await page.screenshot({ path: join(OUT_DIR, `${name}-${colorScheme}.png`), fullPage: true });
  }
}

await check('the log-in link opens the console and leaves the address bar', async () => {
  await page.goto(CONSOLE_URL);
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

await check('no script failed, nothing broke the content-security policy, no other origin was asked', () => {
  must(broken.length === 0, broken.join('; '));
  must(foreign.size === 0, [...foreign].join(', '));
});

await finish();
