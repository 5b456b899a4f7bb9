// A rollout profile as people read it, and where in its JSON a refusal finds fault. Pure.
import type { Definition, Profile } from '../api/contract';
import { percent } from './figures';
import type { Finding } from './flags';

/** What a new profile begins from: whole, so that only its filters and its owner need a look. */
export const PROFILE = {
  default: true,
  owner: '',
  kpi: {
    success: "name = 'request' and http.response.status_code < 400",
    failure: "name = 'request' and http.response.status_code >= 500",
  },
  stage_min: '10m',
  window: '30s',
  max_duration: '1d',
};

interface Stage {
  share?: unknown;
  min?: unknown;
  min_ms?: unknown;
}

function text(value: unknown, unit = ''): string {
  return typeof value === 'string' ? value : value === undefined ? '' : `${JSON.stringify(value)}${typeof value === 'number' ? unit : ''}`;
}

function shareInWords(share: unknown): string {
  return typeof share === 'number' ? percent(share) : text(share).replace(/(?<=\d)%$/, '\u00a0%');
}

/** "1 % for 10m, then 5 % for 1h", or what decides it instead. */
export function stagesInWords(definition: Record<string, unknown>): string {
  const { stages, stage_min } = definition;
  const min = text(stage_min, ' ms') || '5m';
  if (!Array.isArray(stages)) return `as the risk of the flag allows, at least ${min} each`;
  return (stages as Stage[])
    .map(({ share, min, min_ms }) => {
      const how_long = text(min ?? min_ms, ' ms');
      return `${shareInWords(share)}${how_long ? ` for ${how_long}` : ''}`;
    })
    .join(', then ');
}

/** Name and value of what else a profile says, in words; filters are code. */
export function factsOf(definition: Record<string, unknown>): { name: string; value: string; code?: boolean }[] {
  const kpi = (definition.kpi ?? {}) as Record<string, unknown>;
  const guardrails = (definition.guardrails ?? {}) as Record<string, unknown>;
  const facts: { name: string; value: string; code?: boolean }[] = [
    { name: 'An attempt begins with', value: text(kpi.attempt), code: true },
    { name: 'Counts as success', value: text(kpi.success), code: true },
    { name: 'Counts as failure', value: text(kpi.failure), code: true },
    { name: 'Latency is watched of', value: text(kpi.latency), code: true },
    { name: 'Stages', value: stagesInWords(definition) },
    { name: 'Window', value: `${text(definition.window ?? definition.window_ms, ' ms') || '30s'}, outcomes are awaited ${text(definition.settle ?? definition.settle_ms, ' ms') || '5s'} longer` },
    { name: 'Weight of latency', value: text(guardrails.latency) },
    { name: 'Ends at the latest after', value: text(definition.max_duration ?? definition.max_duration_ms, ' ms') || '24h' },
    { name: 'Has to be wanted by', value: text(definition.acceptance) },
  ];
  return facts.filter(({ value }) => value !== '');
}

/** Flags that are watched by it, by name or because they name none. */
export function goesBy(profile: Profile, definitions: Iterable<[string, Definition]>): { named: string[]; others: number } {
  const named: string[] = [];
  let others = 0;
  for (const [key, definition] of definitions) {
    const name = (definition.metadata as Record<string, unknown> | undefined)?.profile;
    if (name === profile.name) named.push(key);
    else if (name === undefined && profile.default) others += 1;
  }
  return { named, others };
}

/** The findings in the sentence of an `invalid-profile`: `stages: a later stage …; guardrails.failures: expected …`. */
export function profileFindings(detail: string): Finding[] {
  return detail.split(/; (?=[a-z_.]+: )/).flatMap((part) => {
    const found = /^([a-z_]+(?:\.[a-z_]+)*): (.+)$/s.exec(part);
    return found?.[1] && found[2] ? [{ place: `/${found[1].replaceAll('.', '/')}`, reason: found[2] }] : [];
  });
}
