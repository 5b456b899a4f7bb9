// Carries plans out with the providers for Node: flagd's (in its two resolvers) and the one for OFREP.
//
// One JSON line in for each plan, `{"plan", "target"}`, and one out, `{"failed": null | [step, why]}`. Before the answer
// there may be questions, `{"ask": "lose" | "modify", ...}`: who reads them does it to the daemon and answers with a
// line. ../steps.py is the same for Python. The first argument is the folder with the packages.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';

const require = createRequire(join(process.argv[2], 'package.json'));
const { OpenFeature, ProviderEvents, ProviderStatus } = require('@openfeature/server-sdk');
const { FlagdProvider } = require('@openfeature/flagd-provider');
const { OFREPProvider } = require('@openfeature/ofrep-provider');

// How long an event may take if the step does not say.
const PATIENCE_MS = 20_000;
// Reconnects come soon, and an outage of 3 s is longer than the time of grace.
const WAITS = { deadlineMs: 2000, retryBackoffMs: 1000, retryBackoffMaxMs: 1000, retryGracePeriod: 2 };
const EVENTS = {
  ready: ProviderEvents.Ready,
  error: ProviderEvents.Error,
  stale: ProviderEvents.Stale,
  change: ProviderEvents.ConfigurationChanged,
};
const logger = { error: console.error, warn: console.error, info: console.error, debug() {} };

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function ask(question) {
  say(question);
  if ((await lines.next()).done) throw new Error('nobody answers');
}

class Failed extends Error {}

const providers = new Map();

class Scenario {
  options = {};
  attributes = {};
  events = [];
  waiting = () => {};

  constructor(target) {
    this.target = target;
  }

  option({ key, value }) {
    this.options[key] = value;
  }

  // One for each target and set of options; fresh ones serve one scenario only.
  async provider() {
    const { resolver, port, ca, socket, fresh } = this.target;
    const shared = JSON.stringify([this.target, this.options]);
    if (fresh || !providers.has(shared)) {
      const domain = `domain-${providers.size}`;
      providers.set(shared, domain);
      const where = socket ? { socketPath: socket } : { host: 'localhost', port };
      const tls = ca ? { tls: true, certPath: ca } : {};
      const options = { resolverType: resolver, ...where, ...tls, ...WAITS, ...this.options };
      const ofrep = () => {
        const headers = this.options.selector ? [['Flagd-Selector', this.options.selector]] : [];
        return new OFREPProvider({ baseUrl: `http://localhost:${port}`, headers });
      };
      const provider = resolver === 'ofrep' ? ofrep() : new FlagdProvider(options, logger);
      await OpenFeature.setProviderAndWait(domain, provider);
    }
    this.client = OpenFeature.getClient(providers.get(shared));
  }

  flag({ type, key, default: value }) {
    this.wanted = { type: { Integer: 'Number', Float: 'Number' }[type] ?? type, key, value };
  }

  context({ path, value }) {
    let inner = this.attributes;
    for (const name of path.slice(0, -1)) inner = inner[name] ??= {};
    inner[path.at(-1)] = value;
  }

  targeting_key({ value }) {
    this.attributes.targetingKey = value;
  }

  handler({ event }) {
    this.client.addHandler(EVENTS[event], (details) => {
      this.events.push({ event, details });
      this.waiting();
    });
  }

  // Takes the event, and drops what came before it: a later step waits for a later event.
  async fired({ event, within_ms }) {
    const patience = within_ms ?? PATIENCE_MS;
    const end = Date.now() + patience;
    let place;
    while ((place = this.events.findIndex((one) => one.event === event)) < 0) {
      if (Date.now() >= end) {
        throw new Failed(`no event ${event} in ${patience} ms, but [${this.events.map((one) => one.event)}]`);
      }
      await new Promise((go) => {
        this.waiting = go;
        setTimeout(go, end - Date.now());
      });
    }
    this.last = this.events[place].details;
    this.events.splice(0, place + 1);
  }

  in_payload() {
    const changed = this.last.flagsChanged ?? [];
    if (!changed.includes(this.wanted.key)) throw new Failed(`the flags of the event are [${changed}]`);
  }

  async evaluate() {
    const { type, key, value } = this.wanted;
    this.details = await this.client[`get${type}Details`](key, value, this.attributes);
  }

  async modify() {
    this.events = this.events.filter((one) => one.event !== 'change');
    await ask({ ask: 'modify' });
  }

  lose({ seconds }) {
    return ask({ ask: 'lose', seconds });
  }

  value({ value }) {
    this.compare('the value', this.details.value, value);
  }

  reason({ reason }) {
    this.compare('the reason', this.details.reason, reason);
  }

  variant({ variant }) {
    this.compare('the variant', this.details.variant, variant);
  }

  error_code({ code }) {
    this.compare('the error code', this.details.errorCode ?? null, code);
  }

  metadata({ values }) {
    for (const [key, value] of Object.entries(values)) {
      this.compare(`metadata.${key}`, this.details.flagMetadata[key], value);
    }
  }

  no_metadata() {
    this.compare('the metadata', this.details.flagMetadata, {});
  }

  status({ status }) {
    this.compare('the status', this.client.providerStatus, ProviderStatus[status]);
  }

  compare(what, seen, wanted) {
    if (isDeepStrictEqual(seen, wanted)) return;
    const because = this.details?.errorMessage ? ` (the provider says: ${this.details.errorMessage})` : '';
    throw new Failed(`${what} is ${JSON.stringify(seen)}, not ${JSON.stringify(wanted)}${because}`);
  }
}

async function carryOut({ plan, target }) {
  const scenario = new Scenario(target);
  for (const [n, { do: step, ...rest }] of plan.entries()) {
    try {
      await scenario[step](rest);
    } catch (error) {
      return [n, error instanceof Failed ? error.message : String(error)];
    }
  }
  return null;
}

for (let line; !(line = await lines.next()).done; ) {
  say({ failed: await carryOut(JSON.parse(line.value)) });
}
process.exit(0);
