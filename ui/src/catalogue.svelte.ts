// All flags and segments as the console knows them. Asked for while a view needs them: at once, after each audit entry
// about one, and every few seconds as a net below. Definitions come with the export, once, and then only those that changed.
import { api } from './api/client';
import type { Definition, Flag, Segment } from './api/contract';
import { poll } from './api/poll';
import { needsOf } from './words/flags';

const EVERY_MS = 15_000;
/** A long list is asked for more rarely: 2,000 flags are 0.7 MB. */
const EVERY_MS_PER_FLAG = 20;
const EVERY_MS_MAX = 120_000;
/** A batch tells of each of its changes; one question answers them all. */
const GATHER_MS = 250;
/** With more changed than this, one export is cheaper than single questions. */
const SINGLES_MAX = 12;

class Catalogue {
  /** Sorted by key; null until the first answer. */
  flags = $state.raw<Flag[] | null>(null);
  segments = $state.raw<Segment[] | null>(null);
  /** Of the flags that are there; empty until the first export. */
  definitions = $state.raw(new Map<string, Definition>());
  failure = $state<unknown>(null);

  #versions = new Map<string, number | null>();
  #users = 0;
  #stop: (() => void) | null = null;
  #asking: Promise<void> | null = null;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  #by_key = $derived(new Map((this.flags ?? []).map((flag) => [flag.key, flag])));
  #segments_by_key = $derived(new Map((this.segments ?? []).map((segment) => [segment.key, segment])));

  /** Flags and segments that need each segment, and flags that need each flag. */
  uses = $derived.by(() => {
    const segments = new Map<string, { flags: string[]; segments: string[] }>();
    const flags = new Map<string, { flags: string[]; segments: string[] }>();
    const note = (map: typeof flags, key: string, user: 'flags' | 'segments', by: string) => {
      const entry = map.get(key) ?? { flags: [], segments: [] };
      if (!entry[user].includes(by)) entry[user].push(by);
      map.set(key, entry);
    };
    const read = (user: 'flags' | 'segments', by: string, value: unknown) => {
      const needs = needsOf(value);
      for (const key of needs.segments) note(segments, key, user, by);
      for (const key of needs.flags) note(flags, key, user, by);
    };
    for (const [key, definition] of this.definitions) if (this.#by_key.has(key)) read('flags', key, definition);
    for (const { key, definition } of this.segments ?? []) read('segments', key, definition);
    return { segments, flags };
  });

  flag(key: string): Flag | undefined {
    return this.#by_key.get(key);
  }

  segment(key: string): Segment | undefined {
    return this.#segments_by_key.get(key);
  }

  /** Keeps it fresh until the returned function is called. */
  watch(): () => void {
    this.#users += 1;
    this.#stop ??= poll(
      () => this.refresh(),
      () => Math.min(Math.max(EVERY_MS, (this.flags?.length ?? 0) * EVERY_MS_PER_FLAG), EVERY_MS_MAX),
    );
    return () => {
      this.#users -= 1;
      if (this.#users > 0) return;
      this.#stop?.();
      this.#stop = null;
      clearTimeout(this.#timer);
    };
  }

  /** Something was recorded about a flag or a segment. */
  stir() {
    if (!this.#stop) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.refresh(), GATHER_MS);
  }

  /** Asks now; one who asks while an answer is under way gets a newer one. */
  async refresh(): Promise<void> {
    this.#again = true;
    this.#asking ??= (async () => {
      while (this.#again) {
        this.#again = false;
        await this.#ask();
      }
    })().finally(() => (this.#asking = null));
    return this.#asking;
  }

  forget() {
    this.flags = null;
    this.segments = null;
    this.definitions = new Map();
    this.#versions.clear();
    this.failure = null;
  }

  async #ask() {
    try {
      const [flags, segments] = await Promise.all([api.flags(), api.segments()]);
      this.flags = flags.toSorted((a, b) => (a.key < b.key ? -1 : 1));
      this.segments = segments.toSorted((a, b) => (a.key < b.key ? -1 : 1));
      await this.#define(flags);
      this.failure = null;
    } catch (error) {
      this.failure = error;
    }
  }

  async #define(flags: Flag[]) {
    const changed = flags.filter(({ key, version }) => !this.definitions.has(key) || this.#versions.get(key) !== version);
    if (changed.length === 0) return;
    const definitions = new Map(this.definitions);
    if (changed.length > SINGLES_MAX) {
      for (const [key, definition] of Object.entries((await api.export()).flags)) definitions.set(key, definition);
    } else {
      const found = await Promise.all(changed.map(({ key }) => api.flag(key).catch(() => null)));
      for (const detail of found) if (detail) definitions.set(detail.key, detail.definition);
    }
    for (const { key, version } of changed) this.#versions.set(key, version);
    this.definitions = definitions;
  }
}

export const catalogue = new Catalogue();
