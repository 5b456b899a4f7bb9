// Which colour a variant has: by its position among the flag's variants, so that it is the same all over the page.

/** As many as app.css has; the second is grey, so that of on and off only on stands out. */
const N_COLOURS = 6;

/** Names in the order in which they are shown: what is false comes last. */
export function inOrder(variants: Record<string, unknown>): string[] {
  return Object.keys(variants).toSorted((a, b) => Number(variants[a] === false) - Number(variants[b] === false));
}

export function colourOf(name: string | null, variants: string[]): string {
  if (name === null) return 'var(--line)';
  const position = variants.indexOf(name);
  return position < 0 ? 'var(--line-strong)' : `var(--variant-${position % N_COLOURS})`;
}
