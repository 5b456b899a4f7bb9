// Times and durations as people read them: the clock time first, the distance beside it.

const TIME = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const DAY_YEAR = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

/** "02:14:07", with the day where it is not today. */
export function absolute(at_ms: number, now_ms: number): string {
  const at = new Date(at_ms);
  const now = new Date(now_ms);
  if (at.toDateString() === now.toDateString()) return TIME.format(at);
  return `${(at.getFullYear() === now.getFullYear() ? DAY : DAY_YEAR).format(at)}, ${TIME.format(at)}`;
}

/** "12 s ago", "in 3 min". */
export function relative(at_ms: number, now_ms: number): string {
  const gap_ms = now_ms - at_ms;
  if (Math.abs(gap_ms) < 1500) return 'just now';
  const length = duration(Math.max(1000, Math.round(Math.abs(gap_ms) / 1000) * 1000)).replace('.0 s', ' s');
  return gap_ms > 0 ? `${length} ago` : `in ${length}`;
}

/** "840 ms", "4.2 s", "3 min 5 s", "2 h 10 min", "4 days". Bare seconds from 10 s on. */
export function duration(length_ms: number): string {
  if (length_ms < 1000) return `${Math.round(length_ms)} ms`;
  const seconds = length_ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return whole % 60 === 0 ? `${minutes} min` : `${minutes} min ${whole % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  const days = Math.floor(hours / 24);
  return days === 1 ? '1 day' : `${days} days`;
}

/** The name of the zone all times are shown in. */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
