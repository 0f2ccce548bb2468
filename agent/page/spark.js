// A line of the last hour, the size of a word. A gap stays a gap.

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 90;
const HEIGHT = 22;

// `points` are [milliseconds, number or undefined] in order; `span` the time shown, in milliseconds.
export function spark(kind, label, points, until, span, step) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("class", `spark ${kind}`);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  const known = points.filter(([at, value]) => value !== undefined && at >= until - span);
  if (!known.length) {
    svg.setAttribute("aria-label", `${label}: nothing in the last hour`);
    return svg;
  }
  const most = Math.max(...known.map(([, value]) => value));
  svg.setAttribute("aria-label", `${label}: the last hour, at most ${most.toPrecision(3)}`);
  const path = document.createElementNS(NS, "path");
  let draw = "";
  let before;
  for (const [at, value] of known) {
    const x = WIDTH - ((until - at) / span) * WIDTH;
    const y = HEIGHT - 1 - (most > 0 ? value / most : 0) * (HEIGHT - 2);
    const joined = before !== undefined && at - before <= 2.5 * step;
    draw += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${joined ? "" : "h1"}`;
    before = at;
  }
  path.setAttribute("d", draw);
  svg.append(path);
  return svg;
}
