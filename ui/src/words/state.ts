// The words for an experiment's state. Colour only repeats what the word says.
import type { Acceptance, Experiment, ExperimentState, FlagChange, Guardrail } from '../api/contract';
import { counted } from './figures';

/** How a state is drawn; `Glyph.svelte` has a shape for each. */
export type Tone = 'wait' | 'go' | 'care' | 'good' | 'harm' | 'off';

const STATES: Record<ExperimentState, { word: string; meaning: string; tone: Tone; over: boolean }> = {
  'warm-up': { word: 'Warming up', meaning: 'Both arms are measured alike; nothing is switched on yet.', tone: 'wait', over: false },
  running: { word: 'Running', meaning: 'The treatment is on for its share of subjects.', tone: 'go', over: false },
  held: { word: 'Held', meaning: 'The treatment is paused.', tone: 'care', over: false },
  completed: { word: 'Completed', meaning: 'It ran to its end and no guardrail stopped it.', tone: 'good', over: true },
  promoted: { word: 'Promoted', meaning: 'The treatment is now what everybody gets.', tone: 'good', over: true },
  stopped: { word: 'Stopped', meaning: 'The treatment is switched off.', tone: 'harm', over: true },
  invalid: { word: 'Invalid', meaning: 'The measurement is broken, so it says nothing about harm.', tone: 'care', over: true },
  expired: { word: 'Expired', meaning: 'No data came for too long; everything was put back.', tone: 'off', over: true },
};

/** A newer server may know states this console does not: they keep their own word. */
export function wordsOf(state: ExperimentState): { word: string; meaning: string; tone: Tone; over: boolean } {
  return STATES[state] ?? { word: state, meaning: '', tone: 'care', over: false };
}

export function isOver(state: ExperimentState): boolean {
  return wordsOf(state).over;
}

export function announcement(experiment: Experiment): string {
  return `${experiment.name}: ${wordsOf(experiment.state).word}. ${experiment.state_reason}`;
}

/** "flag player changes", "3 flags and 1 segment change". */
export function changesInWords(changes: FlagChange[]): string {
  const [first] = changes;
  if (first && changes.length === 1) {
    if (first.put) return `flag ${first.put.key} changes`;
    if (first.delete) return `flag ${first.delete} goes`;
    if (first.revive) return `flag ${first.revive} comes back`;
    if (first.put_segment) return `segment ${first.put_segment.key} changes`;
    return `segment ${first.delete_segment} goes`;
  }
  const n_segments = changes.filter((change) => change.put_segment || change.delete_segment).length;
  const n_flags = changes.length - n_segments;
  const parts = [n_flags > 0 ? counted(n_flags, 'flag') : '', n_segments > 0 ? counted(n_segments, 'segment') : ''].filter(Boolean);
  return `${parts.join(' and ')} change`;
}

/** What the treatment does, in a few words: "fault on license: delay_ms 300". */
export function treatmentInWords({ treatment, kind }: Experiment): string {
  if (treatment.flag) return `flag ${treatment.flag.key} = ${treatment.flag.variant}`;
  if (treatment.flags) return changesInWords(treatment.flags);
  if (!treatment.fault) return kind;
  const { route, ...effects } = treatment.fault;
  const effect = Object.entries(effects)
    .map(([name, value]) => (name === 'delay_ms' ? `${String(value)} ms delay` : `${name.replaceAll('_', ' ')} ${String(value)}`))
    .join(', ');
  return `fault on ${String(route ?? 'a route')}: ${effect}`;
}

const GUARDRAIL_STATES: Record<Guardrail['state'], { word: string; tone: Tone }> = {
  quiet: { word: 'quiet', tone: 'good' },
  alarm: { word: 'alarm', tone: 'harm' },
  'no data': { word: 'no data', tone: 'care' },
};

export function guardrailWords(state: Guardrail['state']): { word: string; tone: Tone } {
  return GUARDRAIL_STATES[state] ?? { word: state, tone: 'care' };
}

/** Whether it works as somebody wants it: who is asked, or what was said. */
export function acceptanceWords({ by, as_wanted }: Acceptance, over: boolean): { word: string; tone: Tone } {
  if (as_wanted === true) return { word: 'Works as wanted', tone: 'good' };
  if (as_wanted === false) return { word: 'Works as coded, not as wanted', tone: 'care' };
  return over ? { word: `${by} did not say`, tone: 'off' } : { word: `Waits for ${by}`, tone: 'wait' };
}
