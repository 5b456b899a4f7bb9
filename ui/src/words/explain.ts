// The steps of an explanation, put together the way a definition is read: one group for each part of it that was looked at,
// with what was asked on the way. Pure.
import type { Condition, Definition, OurDefinition, Rule, Serve, Step } from '../api/contract';
import { conditionInWords, type Piece } from './flags';
import { count } from './figures';
import { partAt } from './json';

export interface Group {
  /** A JSON pointer, or empty for what stands in front of the definition. */
  at: string;
  title: Piece[];
  holds: boolean | null;
  /** What was asked before it was clear. */
  asked: Step[];
  /** How the place in hash space chose, once it was clear. */
  placed: Step[];
}

/** A part of the flag's own definition that closes a group; steps within others do not. */
const PART = /^(?:\/schedule\/\d+\/change)?\/(on|state|targets|fallthrough|prerequisites\/\d+|rules\/\d+)$/;
const SERVE = /\/(?:split|ramp)$/;

export function groupsOf(steps: Step[], definition: Definition | null): Group[] {
  const groups: Group[] = [];
  let pending: Step[] = [];
  for (const step of steps) {
    const last = groups.at(-1);
    if (step.within === undefined && step.at !== undefined && PART.test(step.at)) {
      // A split that found no place for the subject passes on; its note belongs to it.
      const stray = last?.holds ? pending.findIndex((other) => other.at !== undefined || other.within !== undefined) : 0;
      last?.placed.push(...pending.splice(0, stray < 0 ? pending.length : stray));
      groups.push({ at: step.at, title: titleOf(step, definition), holds: step.holds ?? null, asked: pending, placed: [] });
      pending = [];
    } else if (step.within === undefined && step.at !== undefined && SERVE.test(step.at) && last) {
      last.placed.push(...pending, step);
      pending = [];
    } else if (step.experiment !== undefined) {
      groups.push({ at: '', title: [`In the experiment, arm ${step.arm}`], holds: true, asked: [], placed: [] });
    } else {
      pending.push(step);
    }
  }
  groups.at(-1)?.placed.push(...pending);
  return groups;
}

function titleOf({ at = '', holds }: Step, definition: Definition | null): Piece[] {
  const [name, number] = at.replace(/^\/schedule\/\d+\/change/, '').slice(1).split('/');
  const scheduled = at.startsWith('/schedule/') ? ' (as scheduled)' : '';
  const part = definition === null ? undefined : partAt(definition, at);
  switch (name) {
    case 'on':
    case 'state':
      return [`Switched ${holds ? 'on' : 'off'}${scheduled}`];
    case 'targets':
      return [`Named as a single subject${scheduled}`];
    case 'fallthrough':
      return [`Everybody else${scheduled}`];
    case 'prerequisites': {
      const { flag, variants = [] } = (part ?? {}) as { flag?: string; variants?: string[] };
      return flag ? ['Needs ', { to: 'flag', key: flag }, ` to give ${variants.join(' or ')}${scheduled}`] : [`Prerequisite ${Number(number) + 1}`];
    }
    default: {
      const { id, name: called } = (part ?? {}) as Partial<Rule>;
      return [`Rule ${Number(number) + 1}${called ?? id ? `, ${called ?? id}` : ''}${scheduled}`];
    }
  }
}

/** One step in words. `definition` is of the flag or segment that the step is in; null if it is not known. */
export function stepInWords(step: Step, definition: unknown): Piece[] {
  if (step.note !== undefined) return [step.note];
  if (step.place !== undefined) {
    const place = Number.isInteger(step.place) ? count(step.place) : step.place.toPrecision(6);
    const of = step.of === undefined ? '' : ` of ${count(step.of)}`;
    return ['place ', { code: place }, `${of} for `, { code: String(step.unit) }, ` (${step.bucketing}, salt ${JSON.stringify(step.salt)})`];
  }
  if (step.range !== undefined) return step.range ? [`so in the range from ${step.range[0]} to below ${step.range[1]}`] : ['in no range: as if this did not match'];
  if (step.share !== undefined) {
    return [`${Math.round(step.share * 1e6) / 1e4} % have it at this time; this place is ${step.reached ? 'among them' : 'not yet'}`];
  }
  const at = step.at ?? '';
  const part = definition ? partAt(definition, at) : undefined;
  if (/\/when(?:\/|$)/.test(at) && part !== undefined) {
    const condition = part as Condition;
    if (typeof condition === 'object' && 'all' in condition && condition.all.length > 1) return ['all of these'];
    if (typeof condition === 'object' && 'any' in condition && condition.any.length > 1) return ['at least one of these'];
    return conditionInWords(condition);
  }
  if (PART.test(at)) return titleOf(step, (definition ?? null) as Definition | null);
  return [{ code: at }];
}

/** What the split or ramp at a pointer serves, and whether a mark on its bar can stand where the subject's place is. */
export function serveAt(definition: Definition, at: string): { serve: Serve; marked: boolean } | null {
  const serve = partAt(definition as Definition & OurDefinition, at.replace(SERVE, '')) as Serve | undefined;
  if (typeof serve !== 'object' || serve === null) return null;
  return { serve, marked: 'ramp' in serve || serve.split.weights !== undefined };
}
