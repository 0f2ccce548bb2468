// One chart of a VM's time: lines of means with the space between least and most, events as upright lines, zoom by mouse
// and by keys.

import { el } from "./text.js";

const color = (token) => getComputedStyle(document.documentElement).getPropertyValue(`--${token}`).trim();

// `series` are { label, token, key, band }; `zoom(since, until)` is called with seconds.
export function chart(title, form, series, zoom) {
  const missing = el("span", { class: "dim" });
  const caption = el("figcaption", {}, title, missing);
  const place = el("div", { role: "img", tabindex: "0", "aria-label": title });
  const figure = el("figure", {}, caption, place);
  let plot = null;
  let shown = null;

  place.addEventListener("keydown", (event) => {
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const { min, max } = plot.scales.x;
    const [middle, width] = [(min + max) / 2, max - min];
    const to = {
      "+": [middle - width / 4, middle + width / 4], "-": [middle - width, middle + width],
      ArrowLeft: [min - width / 4, max - width / 4], ArrowRight: [min + width / 4, max + width / 4],
    }[event.key];
    if (to) { event.preventDefault(); zoom(...to); }
  });

  function show(answer, events) {
    shown = { answer, events };
    const points = answer.points;
    const at = points.map((point) => Date.parse(point.at) / 1000);
    const column = (key, stat) => points.map((point) => point[key]?.[stat] ?? null);
    const data = [at];
    const lines = [{}];
    const bands = [];
    for (const { label, token, key, band } of series) {
      const value = (_plot, number) => (number === null || number === undefined ? "–" : form(number));
      lines.push({ label, stroke: color(token), width: 1.5, value, points: { show: points.filter((point) => point[key]).length < 30, size: 4 } });
      data.push(column(key, "mean"));
      if (band) {
        const edge = { stroke: "transparent", value, points: { show: false } };
        lines.push({ ...edge, label: `${label}, most` }, { ...edge, label: `${label}, least` });
        data.push(column(key, "max"), column(key, "min"));
        bands.push({ series: [data.length - 2, data.length - 1], fill: `${color(token)}33` });
      }
    }
    place.setAttribute("aria-label", `${title}: ${series.map((one) => summary(one, points, form)).join("; ")}. Plus and minus zoom, arrows move.`);
    const measured = series.some(({ key }) => points.some((point) => point[key]));
    missing.textContent = measured ? "" : ": not measured in this time";
    const width = Math.max(280, place.clientWidth || 600);
    const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1 } };
    plot?.destroy();
    plot = new uPlot({
      width, height: 190, series: lines, bands,
      cursor: { sync: { key: "vm" }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { range: [Date.parse(answer.since) / 1000, Date.parse(answer.until) / 1000] }, y: { range: (_p, _min, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [axis, { ...axis, size: 78, values: (_plot, ticks) => (measured ? ticks.map(form) : []) }],
      hooks: {
        draw: [(drawn) => marks(drawn, events)],
        setSelect: [(drawn) => {
          if (drawn.select.width < 4) return;
          zoom(drawn.posToVal(drawn.select.left, "x"), drawn.posToVal(drawn.select.left + drawn.select.width, "x"));
        }],
      },
    }, data, place);
  }
  return { figure, show, redraw: () => shown && show(shown.answer, shown.events), end: () => plot?.destroy() };
}

function summary({ label, key }, points, form) {
  const known = points.map((point) => point[key]).filter(Boolean);
  if (!known.length) return `${label} was not measured`;
  return `${label} from ${form(Math.min(...known.map((s) => s.min)))} to ${form(Math.max(...known.map((s) => s.max)))}, last ${form(known.at(-1).last)}`;
}

function marks(plot, events) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color("dim");
  ctx.setLineDash([4, 3]);
  for (const event of events) {
    const x = plot.valToPos(event.at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
