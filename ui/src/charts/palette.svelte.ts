// The colours of charts: canvas cannot read CSS variables, so they are read here, again whenever light and dark change.

const NAMES = ['ink', 'ink-soft', 'line', 'surface', 'harm', 'treatment', 'baseline', 'go'] as const;
export type Colour = (typeof NAMES)[number];

class Palette {
  colours = $state.raw(read());

  constructor() {
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => (this.colours = read()));
  }
}

export const palette = new Palette();

function read(): Record<Colour, string> {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])) as Record<Colour, string>;
}
