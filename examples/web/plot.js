// Rates of sites as an SVG: a bar a site, sites of a region side by side, each region in its colour.

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 320;
const MARGIN = { top: 10, right: 12, bottom: 26, left: 58 };
// Between regions, in widths of a bar.
const GAP = 1.5;
export const COLOURS = 6;

/**
 * @param {SVGSVGElement} svg is emptied.
 * @param {{site: string, region: string, rate: number, colour: number}[]} bars regions together.
 * @param {number} width in pixels.
 * @returns {(place: number | null) => void} points out a bar.
 */
export function drawRates(svg, bars, width) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("height", HEIGHT);
  const groups = inGroups(bars);
  const inner = width - MARGIN.left - MARGIN.right;
  const step = inner / (bars.length + GAP * (groups.length - 1));
  const rates = bars.map((bar) => bar.rate);
  const ticks = ticksOf(Math.min(0, ...rates), Math.max(0, ...rates));
  const [low, high] = [ticks[0], ticks.at(-1)];
  const y = (rate) => MARGIN.top + ((high - rate) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  for (const tick of ticks) {
    const at = y(tick);
    add(svg, "line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: tick === 0 ? "zero" : "grid" });
    add(svg, "text", { x: MARGIN.left - 8, y: at, dy: "0.32em", class: "tick end" }, number(tick, ticks[1] - ticks[0]));
  }

  const drawn = [];
  let left = MARGIN.left;
  for (const group of groups) {
    const colour = `region-${group.bars[0].colour}`;
    const start = left;
    for (const { rate } of group.bars) {
      const [top, bottom] = [y(Math.max(rate, 0)), y(Math.min(rate, 0))];
      const thick = Math.max(step * 0.78, Math.min(step, 1));
      const x = left + (step - thick) / 2;
      drawn.push(add(svg, "rect", { x, y: top, width: thick, height: Math.max(bottom - top, 0.5), class: `bar ${colour}` }));
      left += step;
    }
    const mean = y(group.mean);
    add(svg, "line", { x1: start, x2: left, y1: mean, y2: mean, class: "mean" });
    add(svg, "text", { x: (start + left) / 2, y: HEIGHT - 8, class: `name ${colour}` }, group.region);
    left += GAP * step;
  }
  svg.placeAt = (clientX) => nearest(drawn, clientX);
  return (place) => drawn.forEach((bar, other) => bar.classList.toggle("pointed", other === place));
}

/** The regions in the order of the bars, each with its bars and their mean. */
export function inGroups(bars) {
  const groups = [];
  for (const bar of bars) {
    if (groups.at(-1)?.region !== bar.region) groups.push({ region: bar.region, bars: [] });
    groups.at(-1).bars.push(bar);
  }
  for (const group of groups) {
    group.mean = group.bars.reduce((sum, bar) => sum + bar.rate, 0) / group.bars.length;
  }
  return groups;
}

/** A number with the digits that tell `step` apart. */
export function number(value, step) {
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return value.toFixed(Math.min(digits, 6)).replace("-", "\u2212");
}

/** Round numbers from at most `low` to at least `high`. */
function ticksOf(low, high) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / 5));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= 6);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: Math.max(last - first, 1) + 1 }, (_, place) => (first + place) * step);
}

function nearest(bars, clientX) {
  const apart = bars.map((bar) => {
    const { left, right } = bar.getBoundingClientRect();
    return Math.abs((left + right) / 2 - clientX);
  });
  return apart.indexOf(Math.min(...apart));
}

function add(parent, name, attributes, text) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
