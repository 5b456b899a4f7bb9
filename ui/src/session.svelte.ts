// Who is asking: the token of this browser tab. It comes from the link the server prints (`#token=sw_…`) or from the
// log-in form, lives in sessionStorage (gone with the tab), and is never left in the address bar or the history.

import type { Opens } from './api/client';

const KEY = 'seaworthy.token';

class Session {
  /** What the token opens; null until that is known. */
  opens = $state<Opens | null>(null);
  token = $state<string | null>(sessionStorage.getItem(KEY));
  /** Why the form is shown again; null on a first visit. */
  reason = $state<string | null>(null);

  accept(token: string, opens: Opens | null = null) {
    sessionStorage.setItem(KEY, token);
    this.opens = opens;
    this.token = token;
    this.reason = null;
  }

  /** The server refused the token. */
  refuse(reason: string) {
    this.leave();
    this.reason = reason;
  }

  leave() {
    sessionStorage.removeItem(KEY);
    this.token = null;
    this.opens = null;
    this.reason = null;
  }
}

export const session = new Session();

export function takeTokenFromAddress() {
  const fragment = location.hash.slice(1);
  if (!fragment.startsWith('token=')) return;
  const token = new URLSearchParams(fragment).get('token')?.trim();
  history.replaceState(null, '', `${location.pathname}${location.search}#/`);
  window.dispatchEvent(new HashChangeEvent('hashchange'));
  if (token) session.accept(token);
}
