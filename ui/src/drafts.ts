// Texts of definitions that were begun and not saved, so that a look at another page loses nothing. Gone with the tab.

export interface Draft {
  text: string;
  /** What the text began from: the audit index of that version, null for something new. */
  base: number | null;
}

/** The oldest goes first. */
const DRAFTS_MAX = 50;

const drafts = new Map<string, Draft>();

export function draftOf(name: string): Draft | undefined {
  return drafts.get(name);
}

export function keepDraft(name: string, draft: Draft) {
  drafts.delete(name);
  drafts.set(name, draft);
  for (const oldest of drafts.keys()) {
    if (drafts.size <= DRAFTS_MAX) break;
    drafts.delete(oldest);
  }
}

export function dropDraft(name: string) {
  drafts.delete(name);
}
