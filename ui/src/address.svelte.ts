// Which view the address names. Addresses are hashes: `#/`, `#/experiments/<id>`, `#/audit`, `#/audit/<index>`, `#/flags`,
// `#/flags/<key>` with `/edit`, `/explain`, `/previews`, `/delegations` or `/history` behind it, `#/new-flag`, `#/segments`,
// `#/segments/<key>` with `/edit`, `#/new-segment`, `#/unknown-flags`, `#/reviews`, `#/profiles`, `#/profiles/<name>` with `/edit`,
// `#/new-profile`, `#/delegations`. What is searched for or picked stands behind `?`.

export const FLAG_TABS = ['', 'explain', 'edit', 'previews', 'delegations', 'history'] as const;
export type FlagTab = (typeof FLAG_TABS)[number];

export type Place =
  | { view: 'overview' }
  | { view: 'experiment'; id: string }
  | { view: 'audit'; index: number | null }
  | { view: 'flags' }
  | { view: 'flag'; key: string; tab: FlagTab }
  | { view: 'new-flag' }
  | { view: 'segments' }
  | { view: 'segment'; key: string; edit: boolean }
  | { view: 'new-segment' }
  | { view: 'unknown-flags' }
  | { view: 'reviews' }
  | { view: 'profiles' }
  | { view: 'profile'; name: string; edit: boolean }
  | { view: 'new-profile' }
  | { view: 'delegations' }
  | { view: 'unknown'; hash: string };

export function placeOf(hash: string): Place {
  const [path = ''] = hash.split('?', 1);
  const parts = path.replace(/^#\/?/, '').split('/').filter(Boolean).map(decoded);
  const [view, name, more, ...rest] = parts;
  if (view === undefined || view.startsWith('token=')) return { view: 'overview' };
  if (rest.length > 0) return { view: 'unknown', hash };
  if (view === 'flags' && name !== undefined) {
    const tab = FLAG_TABS.find((known) => known === (more ?? ''));
    if (tab !== undefined) return { view: 'flag', key: name, tab };
  }
  if (view === 'segments' && name !== undefined && (more === undefined || more === 'edit')) {
    return { view: 'segment', key: name, edit: more === 'edit' };
  }
  if (view === 'profiles' && name !== undefined && (more === undefined || more === 'edit')) {
    return { view: 'profile', name, edit: more === 'edit' };
  }
  if (more !== undefined) return { view: 'unknown', hash };
  if (view === 'experiments') return name ? { view: 'experiment', id: name } : { view: 'overview' };
  if (view === 'audit' && name === undefined) return { view: 'audit', index: null };
  if (view === 'audit' && /^\d+$/.test(name ?? '')) return { view: 'audit', index: Number(name) };
  if (name !== undefined) return { view: 'unknown', hash };
  switch (view) {
    case 'flags':
    case 'segments':
    case 'new-flag':
    case 'new-segment':
    case 'unknown-flags':
    case 'reviews':
    case 'profiles':
    case 'new-profile':
    case 'delegations':
      return { view };
    default:
      return { view: 'unknown', hash };
  }
}

function wordsOf(hash: string): URLSearchParams {
  const mark = hash.indexOf('?');
  return new URLSearchParams(mark < 0 ? '' : hash.slice(mark + 1));
}

export const addressOf = {
  experiment: (id: string) => `#/experiments/${encodeURIComponent(id)}`,
  audit: (index: number) => `#/audit/${index}`,
  flag: (key: string, tab: FlagTab = '', query: Record<string, string> = {}) =>
    `#/flags/${encodeURIComponent(key)}${tab === '' ? '' : `/${tab}`}${asked(query)}`,
  segment: (key: string, edit = false) => `#/segments/${encodeURIComponent(key)}${edit ? '/edit' : ''}`,
  newFlag: (query: Record<string, string> = {}) => `#/new-flag${asked(query)}`,
  profile: (name: string, edit = false) => `#/profiles/${encodeURIComponent(name)}${edit ? '/edit' : ''}`,
  newProfile: (query: Record<string, string> = {}) => `#/new-profile${asked(query)}`,
  newSegment: (query: Record<string, string> = {}) => `#/new-segment${asked(query)}`,
};

function asked(query: Record<string, string>): string {
  const text = new URLSearchParams(query).toString();
  return text === '' ? '' : `?${text}`;
}

class Address {
  place = $state.raw<Place>(placeOf(location.hash));
  query = $state.raw<URLSearchParams>(wordsOf(location.hash));

  constructor() {
    window.addEventListener('hashchange', () => this.#read());
  }

  /** Puts what is picked behind `?` without a step in the history; what is empty is left out. */
  ask(words: Record<string, string>) {
    const kept = Object.fromEntries(Object.entries(words).filter(([, value]) => value !== ''));
    history.replaceState(null, '', `${location.hash.split('?', 1)[0]}${asked(kept)}`);
    this.query = wordsOf(location.hash);
  }

  #read() {
    this.place = placeOf(location.hash);
    this.query = wordsOf(location.hash);
  }
}

export const address = new Address();

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
