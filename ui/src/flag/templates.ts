// What a new flag begins from. Each says what it is for, and is whole: it can be saved as it is.
import type { OurDefinition, SegmentDefinition } from '../api/contract';

export interface Template {
  id: string;
  name: string;
  what: string;
  definition: (segment: string) => OurDefinition;
  needs_segment?: boolean;
}

const ON_OFF = { on: true, off: false };

export const TEMPLATES: Template[] = [
  {
    id: 'release',
    name: 'Release flag',
    what: 'New code, off for everybody until you let users in.',
    definition: () => ({
      kind: 'release', description: '', owner: '', variants: ON_OFF, on: true, off_variant: 'off', fallthrough: 'off',
    }),
  },
  {
    id: 'kill-switch',
    name: 'Kill switch',
    what: 'On for everybody; one click turns a part of the system off.',
    definition: () => ({
      kind: 'kill-switch', risk: 'high', description: '', owner: '', variants: ON_OFF, on: true, off_variant: 'off', fallthrough: 'on',
    }),
  },
  {
    id: 'percentage',
    name: 'Percentage rollout',
    what: 'On for a share of users, always the same ones; a larger share only adds to them.',
    definition: () => ({
      kind: 'release', description: '', owner: '', variants: ON_OFF, on: true, off_variant: 'off',
      fallthrough: { split: { weights: [['on', 5], ['off', 95]] } },
    }),
  },
  {
    id: 'permission',
    name: 'Permission by segment',
    what: 'Granted to one group of users, for as long as it lives.',
    definition: (segment) => ({
      kind: 'permission', description: '', owner: '', variants: { granted: true, refused: false }, on: true, off_variant: 'refused',
      rules: [{ id: segment, when: { segment }, serve: 'granted' }],
      fallthrough: 'refused',
    }),
    needs_segment: true,
  },
];

/** What a new segment begins from. */
export const SEGMENT: SegmentDefinition = {
  description: '',
  include: [],
  exclude: [],
  when: { attr: 'email', op: 'ends_with', values: ['@example.com'] },
};
