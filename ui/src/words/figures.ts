// Numbers as people read them. Every function returns the number with its unit, or "–" where there is none.

const NONE = '–';
const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const ONE = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const TWO = new Intl.NumberFormat('en', { maximumSignificantDigits: 2 });
const THREE = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

type Maybe = number | null | undefined;

function known(value: Maybe): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

export function count(value: Maybe): string {
  return known(value) ? WHOLE.format(value) : NONE;
}

/** "1 subject", "12 subjects". */
export function counted(value: Maybe, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function decimal(value: Maybe): string {
  if (!known(value)) return NONE;
  return Math.abs(value) >= 100 ? WHOLE.format(value) : Math.abs(value) >= 10 || value === 0 ? ONE.format(value) : THREE.format(value);
}

/** With two decimals, so that figures beside each other line up: "−0.40". */
export function hundredths(value: Maybe): string {
  return known(value) ? `${value < 0 ? '−' : ''}${Math.abs(value).toFixed(2)}` : NONE;
}

/** A rate a person compares by eye: always one decimal. */
export function rate(value: Maybe): string {
  return known(value) ? ONE.format(value) : NONE;
}

/** 0.05 → "5 %", with a space that does not break. */
export function percent(share: Maybe): string {
  if (!known(share)) return NONE;
  const value = share * 100;
  // Nearly all is not all: 99.94 % must not be rounded to 100 %.
  if (value > 99 && value < 100) return `${(Math.floor(value * 100) / 100).toFixed(2)}\u00a0%`;
  const whole = Math.abs(value) >= 10 || Number.isInteger(Math.round(value * 1000) / 1000);
  return `${(whole ? WHOLE : Math.abs(value) >= 1 ? ONE : TWO).format(value)}\u00a0%`;
}

export function ratio(part: Maybe, whole: Maybe): string {
  return known(part) && known(whole) && whole > 0 ? percent(part / whole) : NONE;
}

export function signed(value: Maybe): string {
  if (!known(value)) return NONE;
  return value > 0 ? `+${hundredths(value)}` : hundredths(value);
}

/** An e-value from its logarithm: "0.42", "187", "3.1 × 10^14" with a real superscript. */
export function eValue(log_e: Maybe): string {
  if (!known(log_e)) return NONE;
  const power = log_e / Math.LN10;
  if (power > -3 && power < 6) return decimal(Math.exp(log_e));
  const exponent = Math.floor(power);
  return `${(10 ** (power - exponent)).toFixed(1)} × 10${superscript(exponent)}`;
}

/** Powers of ten as axis labels: "0.1", "1", "1,000", "10¹²". */
export function powerOfTen(exponent: number): string {
  return Math.abs(exponent) <= 4 ? THREE.format(10 ** exponent) : `10${superscript(exponent)}`;
}

function superscript(value: number): string {
  return String(value).replace(/[-\d]/g, (digit) => (digit === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'.charAt(Number(digit))));
}

/** How far evidence is along the way to the stopping line, in [0, ∞); evidence against harm counts as 0. */
export function progress(log_e: Maybe, log_threshold: number): number {
  if (log_e === null) return 1;
  if (!known(log_e) || !(log_threshold > 0)) return 0;
  return Math.max(0, log_e / log_threshold);
}
