// What is drawn over the lines of a chart: labelled vertical markers for moments, labelled horizontal lines for limits.
import type uPlot from 'uplot';

export interface Mark {
  /** Seconds since 1970. */
  t: number;
  label: string;
}

export interface Limit {
  value: number;
  label: string;
}

const FONT_PX = 11;
/** Labels of moments close together are set on rows below each other, at most this many. */
const ROWS_MAX = 4;

export function drawMarks(plot: uPlot, marks: Mark[], ink: string, ground: string) {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  const taken: number[] = Array<number>(ROWS_MAX).fill(-Infinity);
  ctx.save();
  ctx.font = `${FONT_PX * scale}px system-ui, sans-serif`;
  ctx.textAlign = 'left';
  ctx.textBaseline = 'top';
  ctx.lineWidth = scale;
  for (const { t, label } of marks.toSorted((a, b) => a.t - b.t)) {
    const x = Math.round(plot.valToPos(t, 'x', true));
    if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
    const width = ctx.measureText(label).width;
    const gap = 4 * scale;
    // Near the right edge the label goes to the left of its line.
    const left = x + gap + width > bbox.left + bbox.width ? Math.max(bbox.left, x - gap - width) : x + gap;
    const free = taken.findIndex((end) => left > end + gap);
    const row = free < 0 ? ROWS_MAX - 1 : free;
    taken[row] = left + width;
    const top = bbox.top + gap / 2 + row * (FONT_PX + 4) * scale;
    ctx.strokeStyle = ink;
    ctx.globalAlpha = 0.75;
    ctx.setLineDash([2 * scale, 3 * scale]);
    line(ctx, x, bbox.top, x, bbox.top + bbox.height);
    ctx.fillStyle = ground;
    ctx.globalAlpha = 0.85;
    ctx.fillRect(left - scale, top - scale, width + 2 * scale, (FONT_PX + 3) * scale);
    ctx.globalAlpha = 1;
    ctx.fillStyle = ink;
    ctx.fillText(label, left, top);
  }
  ctx.restore();
}

export function drawLimits(plot: uPlot, limits: Limit[], ink: string) {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.font = `600 ${FONT_PX * scale}px system-ui, sans-serif`;
  ctx.textAlign = 'left';
  ctx.textBaseline = 'top';
  ctx.strokeStyle = ink;
  ctx.fillStyle = ink;
  ctx.lineWidth = 2 * scale;
  ctx.setLineDash([7 * scale, 4 * scale]);
  for (const { value, label } of limits) {
    const y = Math.round(plot.valToPos(value, 'y', true));
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    line(ctx, bbox.left, y, bbox.left + bbox.width, y);
    // Below its line: above it stand the labels of the markers.
    ctx.fillText(label, bbox.left + 5 * scale, y + 4 * scale);
  }
  ctx.restore();
}

function line(ctx: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}
