// The page: an image is chosen or dropped, and the rates of every site are shown.

import { COLOURS, drawRates, inGroups, number } from "./plot.js";
import { openPredictor, pixelsOf } from "./predictor.js";

const part = (id) => document.getElementById(id);
const HINT = "Point at a bar, or press the arrow keys, to read a site.";

let predictor;
let units;
// Sites in the order of the plot, those of a region together.
let order;
let colourOf;
// Counts images, so that a slow one does not replace a later one.
let latest = 0;
// Of the image that is shown: its bars, the last digit that is written, and the bar that is pointed at.
let shown;
let digit;
let pointed = null;
let pointOut = () => {};

function state(name, status, error) {
  document.body.dataset.state = name;
  part("status").textContent = status;
  part("error").textContent = error ?? "";
  part("error").hidden = !error;
  document.querySelector("main").setAttribute("aria-busy", String(name === "opening" || name === "predicting"));
}

async function open() {
  try {
    predictor = await openPredictor(new URL("./", location.href).href);
  } catch (error) {
    state("failed", "", `The predictor does not open: ${error.message}. Put predictor.onnx and predictor.json of a run beside index.html, and load the page again.`);
    return;
  }
  const { sites, regions, simulated } = predictor;
  units = predictor.units === "unknown" ? "unknown units" : predictor.units;
  const names = [...new Set(regions)];
  colourOf = new Map(names.map((name, place) => [name, place % COLOURS]));
  order = names.flatMap((name) => sites.map((_, site) => site).filter((site) => regions[site] === name));
  part("facts").textContent = `How ${counted(sites.length)} in ${names.join(" and ")} would respond to an image. Predictor: ${predictor.predictor}. The image stays on this machine.`;
  part("simulated").hidden = !simulated;
  part("scores").textContent = `Held-out NRP-error, in ${predictor.score_units}, with 95 % interval: ${names.map(errorOf).join("; ")}.`;
  part("caption").textContent = `Rate of each site, in ${units}. Dashed: the mean of a region.`;
  part("unit").textContent = `Rate, in ${units}`;
  part("file").disabled = false;
  state("ready", "");
}

async function show(file) {
  if (!predictor) return;
  const turn = ++latest;
  state("predicting", `Computing the rates for ${file.name} …`);
  await painted();
  let pixels;
  try {
    pixels = await pixelsOf(file);
  } catch {
    if (turn === latest) state("failed", "", `${file.name} does not open as an image. Choose a PNG, JPEG or WebP file.`);
    return;
  }
  try {
    const rates = await predictor.predict(pixels);
    if (turn === latest) present(file, pixels, rates);
  } catch (error) {
    if (turn === latest) state("failed", "", `The predictor does not run on ${file.name}: ${error.message}`);
  }
}

function present(file, pixels, rates) {
  shown = order.map((site) => {
    const region = predictor.regions[site];
    return { site: predictor.sites[site], region, rate: rates[site], colour: colourOf.get(region) };
  });
  URL.revokeObjectURL(part("picture").src);
  part("picture").src = URL.createObjectURL(file);
  part("picture").alt = file.name;
  part("name").textContent = file.name;
  part("size").textContent = `${pixels.width} × ${pixels.height} pixels`;
  const largest = Math.max(...shown.map((bar) => Math.abs(bar.rate)));
  // Four digits of the largest rate.
  digit = largest > 0 ? 10 ** (Math.floor(Math.log10(largest)) - 3) : 1;
  const groups = inGroups(shown);
  part("legend").replaceChildren(...groups.map(legendEntry));
  part("rows").replaceChildren(...shown.map(row));
  const means = groups.map(({ region, mean }) => `${region} ${number(mean, digit)}`).join(", ");
  part("plot").setAttribute("aria-label", `Rates of ${shown.length} sites in ${units}. Means: ${means}. Arrow keys read one site after the other.`);
  part("result").hidden = false;
  pointed = null;
  draw();
  state("shown", "");
}

function errorOf(region) {
  const { value, ci95 } = predictor.scores[region].nrp_error;
  return `${region} ${number(value, 0.001)} [${ci95.map((end) => number(end, 0.001)).join(", ")}]`;
}

const counted = (n) => `${n} ${n === 1 ? "site" : "sites"}`;

function legendEntry({ region, mean, bars }) {
  const entry = document.createElement("li");
  entry.className = `region-${bars[0].colour}`;
  const name = document.createElement("strong");
  name.textContent = region;
  entry.append(name, ` ${counted(bars.length)}, mean ${number(mean, digit)}`);
  return entry;
}

function row({ site, region, rate }) {
  const line = document.createElement("tr");
  for (const text of [site, region, number(rate, digit)]) {
    line.append(Object.assign(document.createElement("td"), { textContent: text }));
  }
  line.lastChild.className = "number";
  return line;
}

function draw() {
  const plot = part("plot");
  pointOut = drawRates(plot, shown, Math.max(plot.parentElement.clientWidth, 240));
  point(pointed);
}

function point(place) {
  pointed = place;
  pointOut(place);
  const bar = shown[place];
  part("site").textContent = bar ? `${bar.site} (${bar.region}): ${number(bar.rate, digit)} ${units}` : HINT;
}

function moved(event) {
  const last = shown.length - 1;
  const to = {
    ArrowRight: pointed === null ? 0 : Math.min(pointed + 1, last),
    ArrowLeft: pointed === null ? last : Math.max(pointed - 1, 0),
    Home: 0,
    End: last,
    Escape: null,
  };
  if (!(event.key in to)) return;
  event.preventDefault();
  point(to[event.key]);
}

// Two frames: the first is asked for, the second comes after it was painted.
const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));

part("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) show(file);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  part("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) part("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) show(file);
});
part("plot").addEventListener("keydown", moved);
part("plot").addEventListener("pointermove", (event) => point(part("plot").placeAt(event.clientX)));
part("plot").addEventListener("pointerleave", () => point(null));
part("plot").addEventListener("blur", () => point(null));
new ResizeObserver(() => shown && draw()).observe(part("plot").parentElement);
open();
