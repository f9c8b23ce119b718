// predictor.onnx in the browser: pixels of an image in, one rate a site out.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

// More threads need a server that sends cross-origin isolation headers.
ort.env.wasm.numThreads = 1;

// What nrp-onnx shows transparent pixels on.
const BACKGROUND = "rgb(128 128 128)";

/**
 * Open predictor.onnx and predictor.json.
 * @param {string} folder address of where they lie, which ends in a slash.
 * @returns {Promise<{sites: string[], regions: string[], units: string, simulated: boolean,
 *   predictor: string, scores: object, score_units: string, predict: (pixels: ImageData) => Promise<Float32Array>}>}
 */
export async function openPredictor(folder) {
  const [facts, model] = await Promise.all([
    fetched(`${folder}predictor.json`).then((answer) => answer.json()),
    fetched(`${folder}predictor.onnx`).then((answer) => answer.arrayBuffer()),
  ]);
  const session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: ["wasm"],
  });
  // A session runs one image at a time.
  let last = Promise.resolve();
  async function predict(pixels) {
    const run = last.then(() => session.run({ images: asTensor(pixels) }));
    last = run.catch(() => {});
    const { rates } = await run;
    return rates.data;
  }
  return { ...facts, predict };
}

/**
 * Decode an image as nrp-onnx does: turned as its EXIF says, without a colour profile.
 * @param {Blob} blob
 * @returns {Promise<ImageData>}
 */
export async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = BACKGROUND;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.split("/").pop()} is not there (${answer.status})`);
  return answer;
}

function asTensor({ width, height, data }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [1, height, width, 3]);
}
