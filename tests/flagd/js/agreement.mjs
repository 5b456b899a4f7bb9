// What the flagd provider for Node answers in process: `{"port", "keys", "contexts", "default"}` in, for each context an object of
// values by key out, null where there is no such flag. The first argument is the folder with the packages. ../agreement.py asks.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));
const { OpenFeature } = require('@openfeature/server-sdk');
const { FlagdProvider } = require('@openfeature/flagd-provider');

const asked = JSON.parse(readFileSync(0, 'utf8'));
const logger = { error: console.error, warn: console.error, info() {}, debug() {} };
OpenFeature.setLogger(logger);
const options = { host: 'localhost', port: asked.port, resolverType: 'in-process', deadlineMs: 5000 };
await OpenFeature.setProviderAndWait(new FlagdProvider(options, logger));
const client = OpenFeature.getClient();
const answers = [];
for (const context of asked.contexts) {
  const answer = {};
  for (const key of asked.keys) {
    const found = await client.getStringDetails(key, asked.default, context);
    answer[key] = found.errorCode === 'FLAG_NOT_FOUND' ? null : found.value;
  }
  answers.push(answer);
}
process.stdout.write(JSON.stringify(answers));
await OpenFeature.close();
process.exit(0);
