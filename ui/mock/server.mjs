// A stand-in for the server, so that the console can be worked on without the backend: serves dist/ under the real
// content-security policy and answers the REST API from a story. `npm run build && npm run mock`; no dependencies.
// PORT (default 7788; 0 picks one), and the story starts again when the process does.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Story } from './story.mjs';

const TOKEN = 'sw_mock';
const DIST = fileURLToPath(new URL('../dist', import.meta.url));
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'";

const story = new Story(Date.now());
const listeners = new Set();

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://mock');
  if (!url.pathname.startsWith('/api/v1/')) return file(url.pathname, response);
  if (request.headers.authorization !== `Bearer ${TOKEN}`) {
    return problem(response, 401, 'unauthenticated', 'the token is missing or unknown', 'Open the link the server printed when it started.');
  }
  const path = url.pathname.slice('/api/v1'.length);
  const body = request.method === 'GET' ? {} : await json(request);
  answer(request.method, path, url.searchParams, body, response);
});

function answer(method, path, query, body, response) {
  const now = Date.now();
  publish(story.tell(now));
  const [, kind, id, part] = path.split('/').map(decodeURIComponent);
  const call = `${method} /${kind}${id ? '/:id' : ''}${part ? `/${part}` : ''}`;
  const one = () => story.experiments(now).find((experiment) => experiment.id === id);
  if (kind === 'experiments' && id && !one()) return problem(response, 404, 'no-such-experiment', `there is no experiment ${id}`, 'See the list of experiments.');
  switch (call) {
    case 'GET /status': return send(response, story.status(now));
    case 'GET /experiments': return send(response, { experiments: story.experiments(now) });
    case 'GET /experiments/:id': return send(response, one());
    case 'GET /experiments/:id/timeline': return send(response, story.timeline(id, now));
    case 'GET /experiments/:id/comparison': {
      const comparison = story.comparison(id, now);
      return comparison ? send(response, comparison) : problem(response, 404, 'not-yet', 'nobody in treatment was hurt so far', 'Ask again later.');
    }
    case 'POST /experiments/:id/stop':
      if (!one().ended_at) {
        story.stops.set(id, { at: now, reason: body.reason });
        publish([story.log(now, 'console', 'experiment.stop', `experiment/${id}`, body.reason, {})]);
      }
      return send(response, one());
    case 'POST /experiments/:id/ack':
      story.acknowledged.set(id, body.reason);
      publish([story.log(now, 'console', 'experiment.ack', `experiment/${id}`, body.reason, {})]);
      return send(response, one());
    case 'POST /halt':
    case 'POST /resume':
      story.halted = kind === 'halt';
      story.epoch += 1;
      publish([story.log(now, 'console', kind, 'seaworthy', body.reason, { epoch: story.epoch })]);
      return send(response, story.status(now));
    case 'GET /audit': {
      const limit = Number(query.get('limit') ?? 50);
      const from = query.has('from') ? Number(query.get('from')) : Math.max(0, story.entries.length - limit);
      return send(response, { size: story.entries.length, entries: story.entries.slice(from, from + limit).reverse() });
    }
    case 'GET /audit/:id/proof':
      response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
      return response.end(`c2sp.org/tlog-proof@v1\nindex ${id}\nmock+not+a+real+proof=\n`);
    case 'GET /flags': return send(response, { flags: story.flags() });
    case 'GET /flags/:id': {
      const flag = story.flags().find(({ key }) => key === id);
      if (!flag) return problem(response, 404, 'unknown-flag', `there is no flag "${id}"`, 'see `seaworthy flag list`');
      return send(response, { ...flag, definition: story.definition(flag), at: null });
    }
    case 'GET /flags/:id/history': return send(response, { entries: story.entries.filter(({ resource }) => resource === `flag ${id}`).reverse() });
    case 'GET /export': return send(response, { flags: Object.fromEntries(story.flags().map((flag) => [flag.key, story.definition(flag)])), segments: {} });
    case 'GET /segments': return send(response, { segments: [] });
    case 'GET /unknown-flags': return send(response, { flags: [] });
    case 'GET /reviews': return send(response, { entries: [] });
    case 'POST /flags/:id/kill':
      story.killed.set(id, body.reason);
      publish([story.log(now, 'console', 'flag.kill', `flag ${id}`, body.reason, {})]);
      return send(response, story.flags().find((flag) => flag.key === id));
    case 'GET /stream': return stream(response);
    default: return problem(response, 404, 'no-such-call', `there is no ${method} ${path}`, 'See docs/reference/api.md.');
  }
}

function stream(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': hello\n\n');
  listeners.add(response);
  response.on('close', () => listeners.delete(response));
}

function publish(entries) {
  for (const entry of entries) say('audit', entry);
}

function say(event, data) {
  for (const listener of listeners) listener.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}

const last = new Map();
setInterval(() => {
  const now = Date.now();
  publish(story.tell(now));
  for (const experiment of story.experiments(now)) {
    const text = JSON.stringify(experiment);
    if (last.get(experiment.id) !== text) say('experiment', experiment);
    last.set(experiment.id, text);
  }
}, 250);
setInterval(() => say('status', story.status(Date.now())), 1000);
setInterval(() => listeners.forEach((listener) => listener.write(': still here\n\n')), 5000);

function file(path, response) {
  const name = normalize(path === '/' ? '/index.html' : decodeURIComponent(path));
  const place = join(DIST, name);
  if (!place.startsWith(DIST) || !existsSync(place) || !statSync(place).isFile()) {
    response.writeHead(404);
    return response.end('not found; has `npm run build` been run?\n');
  }
  response.writeHead(200, { 'content-type': TYPES[extname(place)] ?? 'application/octet-stream', 'content-security-policy': CSP });
  createReadStream(place).pipe(response);
}

function send(response, value) {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

function problem(response, status, code, detail, remedy) {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ type: 'about:blank', title: code, status, detail, code, remedy }));
}

async function json(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : {};
}

server.listen(Number(process.env.PORT ?? 7788), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/#token=${TOKEN}`);
});
