// Which colour a variant has: by its position among the flag's variants, so that it is the same all over the page.

/** As many as app.css has. */
const N_COLOURS = 6;

export function colourOf(name: string | null, variants: string[]): string {
  if (name === null) return 'var(--line)';
  const position = variants.indexOf(name);
  return position < 0 ? 'var(--line-strong)' : `var(--variant-${position % N_COLOURS})`;
}
