// Asking again and again for what the stream does not carry (timeline, comparison, flags). Never two at once, and
// not while nobody looks at the page.

/** Calls `ask` at once, then `pause_ms()` after each answer, until the returned function is called. */
export function poll(ask: () => Promise<void>, pause_ms: () => number): () => void {
  let over = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  async function turn() {
    if (over) return;
    if (!document.hidden) await ask();
    if (!over) timer = setTimeout(turn, pause_ms());
  }

  function seen() {
    if (document.hidden) return;
    clearTimeout(timer);
    timer = setTimeout(turn, 0);
  }

  document.addEventListener('visibilitychange', seen);
  timer = setTimeout(turn, 0);
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', seen);
  };
}
