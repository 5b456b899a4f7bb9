// A page's view of the flags: the OFREP web provider for browsers, in Node, told of changes by the change stream only.
//
// One JSON line out when the flags are there and for each change, `{"event", "value", "at_ms", "requests"}`; the value is that
// of the flag. It ends with its standard input. The first argument is the folder with the packages, the second
// `{"base", "token", "flag", "apiKey"}`. Polling is off, and `requests` counts what the provider asked for: a provider that
// polls is seen.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));
const { base, token, flag, apiKey } = JSON.parse(process.argv[3]);
// Browsers have it; Node has one only behind an option.
globalThis.EventSource = require('eventsource').EventSource;
const { OpenFeature, ProviderEvents } = require('@openfeature/web-sdk');
const { OFREPWebProvider } = require('@openfeature/ofrep-web-provider');

let requests = 0;
let answers = [];
const header = apiKey ? ['X-API-Key', token] : ['Authorization', `Bearer ${token}`];
const provider = new OFREPWebProvider(
  {
    baseUrl: base,
    pollInterval: 0,
    cacheMode: 'disabled',
    headers: [header],
    fetchImplementation: async (...args) => {
      requests += 1;
      const response = await fetch(...args);
      answers.push(response.status);
      return response;
    },
  },
  { error: console.error, warn: console.error, info: console.error, debug() {} },
);

const client = OpenFeature.getClient();
const say = (event, more = {}) => {
  const value = client.getStringValue(flag, 'code default');
  process.stdout.write(`${JSON.stringify({ event, value, at_ms: Date.now(), requests, answers, ...more })}\n`);
  answers = [];
};
client.addHandler(ProviderEvents.ConfigurationChanged, () => say('change'));
client.addHandler(ProviderEvents.Stale, () => say('stale'));
client.addHandler(ProviderEvents.Error, () => say('error'));

await OpenFeature.setContext({ targetingKey: 'ann' });
await OpenFeature.setProviderAndWait(provider);
say('ready');

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
