// The words for an experiment's state. Colour only repeats what the word says.
import type { Experiment, ExperimentState, FlagChange, Guardrail } from '../api/contract';

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

function changeInWords({ put, revive, put_segment, ...change }: FlagChange): string {
  if (put || revive) return `flag ${put?.key ?? revive}`;
  if (change.delete) return `flag ${change.delete} (deleted)`;
  return put_segment ? `segment ${put_segment.key}` : `segment ${change.delete_segment} (deleted)`;
}

/** What the treatment does, in a few words: "fault on license: delay_ms 300". */
export function treatmentInWords({ treatment, kind }: Experiment): string {
  if (treatment.flag) return `flag ${treatment.flag.key} = ${treatment.flag.variant}`;
  if (treatment.flags) return `change of ${treatment.flags.map(changeInWords).join(', ')}`;
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
