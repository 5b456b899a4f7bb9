// What the checks in a real browser share: one page, named checks, pictures in light and dark. Plain node. CONSOLE_URL is the
// log-in link, OUT_DIR takes screenshots, CHROMIUM names the browser. Exits 0 when every check passed, 1 otherwise; the last line
// is `N passed, N failed`.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const { CONSOLE_URL, OUT_DIR = 'e2e-out', CHROMIUM = '/usr/bin/chromium' } = process.env;
if (!CONSOLE_URL) {
  console.error('CONSOLE_URL is not set: give it the log-in link the server prints (http://…/#token=sw_…)');
  process.exit(1);
}
mkdirSync(OUT_DIR, { recursive: true });

export const link = CONSOLE_URL;
export const origin = new URL(CONSOLE_URL).origin;
export const token = new URLSearchParams(new URL(CONSOLE_URL).hash.slice(1)).get('token');

let passed = 0;
let failed = 0;

/** Runs one check; later ones still run when it fails, unless they `need` it. */
export async function check(name, run, need = false) {
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

export async function finish() {
  await browser.close();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

export function must(truth, otherwise) {
  if (!truth) throw new Error(otherwise);
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
  ],
});
export const page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
const foreign = new Set();
const broken = [];
page.on('request', (request) => {
  if (!request.url().startsWith(origin)) foreign.add(request.url());
});
page.on('pageerror', (error) => broken.push(error.message));
page.on('console', (message) => {
  if (/content security policy/i.test(message.text())) broken.push(message.text());
});

/** The page as it is now, whole, in light and dark. Some things draw themselves and need `settle_ms`. */
export async function picture(name, settle_ms = 400) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(settle_ms);
    await page.screenshot({ path: join(OUT_DIR, `${name}-${colorScheme}.png`), fullPage: true });
  }
}

/** The last check of each script. */
export async function stayedClean() {
  await check('no script failed, nothing broke the content-security policy, no other origin was asked', () => {
    must(broken.length === 0, broken.join('; '));
    must(foreign.size === 0, [...foreign].join(', '));
  });
}
