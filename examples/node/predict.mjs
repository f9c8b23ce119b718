// Rates of images in Node: node predict.mjs predictor.onnx image.png [image.jpg ...]
// Prints {units, images: [{image, rates: {site: rate}}]}; predictor.json lies beside predictor.onnx.

import { readFile } from "node:fs/promises";
import jpeg from "jpeg-js";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";

// What nrp-onnx shows transparent pixels on.
const BACKGROUND = 128;

async function main([model, ...images]) {
  if (!images.length) throw new Error("give predictor.onnx, then images (PNG or JPEG)");
  const facts = JSON.parse(await readFile(model.replace(/\.onnx$/, ".json"), "utf8"));
  const session = await ort.InferenceSession.create(model);
  const found = [];
  for (const image of images) {
    const { width, height, data } = decode(await readFile(image), image);
    const pixels = new ort.Tensor("uint8", withoutAlpha(data), [1, height, width, 3]);
    const { rates } = await session.run({ images: pixels });
    const bySite = facts.sites.map((site, place) => [site, rates.data[place]]);
    found.push({ image, rates: Object.fromEntries(bySite) });
  }
  console.log(JSON.stringify({ units: facts.units, images: found }));
}

// {width, height, data}, data being RGBA.
function decode(bytes, name) {
  if (bytes[0] === 0x89 && bytes.toString("latin1", 1, 4) === "PNG") return PNG.sync.read(bytes);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpeg.decode(bytes, { useTArray: true });
  throw new Error(`${name} is neither PNG nor JPEG`);
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      const over = rgba[from + channel] * alpha + BACKGROUND * (255 - alpha);
      rgb[to++] = Math.floor((over + 127) / 255);
    }
  }
  return rgb;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
}
