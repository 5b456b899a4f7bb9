// Which view the address names. Addresses are hashes: `#/`, `#/experiments/<id>`, `#/audit`, `#/audit/<index>`, `#/flags`.

export type Place =
  | { view: 'overview' }
  | { view: 'experiment'; id: string }
  | { view: 'audit'; index: number | null }
  | { view: 'flags' }
  | { view: 'unknown'; hash: string };

export function placeOf(hash: string): Place {
  const parts = hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decoded);
  const [view, name, ...rest] = parts;
  if (view === undefined || view.startsWith('token=')) return { view: 'overview' };
  if (rest.length === 0) {
    if (view === 'experiments') return name ? { view: 'experiment', id: name } : { view: 'overview' };
    if (view === 'audit' && name === undefined) return { view: 'audit', index: null };
    if (view === 'audit' && /^\d+$/.test(name ?? '')) return { view: 'audit', index: Number(name) };
    if (view === 'flags' && name === undefined) return { view: 'flags' };
  }
  return { view: 'unknown', hash };
}

export const addressOf = {
  experiment: (id: string) => `#/experiments/${encodeURIComponent(id)}`,
  audit: (index: number) => `#/audit/${index}`,
};

class Address {
  place = $state.raw<Place>(placeOf(location.hash));

  constructor() {
    window.addEventListener('hashchange', () => {
      this.place = placeOf(location.hash);
    });
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
