// Turns a photo's bytes into a model's input, as temper/preparation.py and temper/photos.py do: upright RGB, 0-255,
// shrunk by area averaging and enlarged by cubic interpolation, both with the weights of OpenCV's `resize`.

const STRIP = 1 << 20; // pixels read from a decoded photo at a time: phones refuse canvases of a whole photo
const MOST_PIXELS = 200_000_000; // as in temper/photos.py
const SHARPNESS = -0.75; // parameter of the cubic kernel, as in OpenCV
const REDUCTIONS = [8, 4, 2];
const LARGEST_SHIFT = 1 / 8; // the most by which reducing may shift the picture, in pixels of the model's input

/** An error whose message is a sentence for the user. */
function problem(sentence) {
  return Object.assign(new Error(sentence), { forPeople: true });
}

/**
 * The inputs of models for a photo.
 *
 * @param {Blob} photo in a format that the browser can decode
 * @param {{height: number, width: number, fit: "stretch" | "crop" | "pad"}[]} preparations
 * @returns {Promise<Uint8ClampedArray[]>} for each preparation height * width * 3 values, 0-255, row by row
 */
export async function prepare(photo, preparations) {
  requireTruePixels();
  const isJpeg = new Uint8Array(await photo.slice(0, 3).arrayBuffer()).join() === "255,216,255";
  const bitmap = await decode(photo);
  try {
    return preparations.map((preparation) => {
      const scale = isJpeg ? reduction(bitmap, preparation) : 1;
      const [tall, wide] = [bitmap.height, bitmap.width].map((side) => Math.ceil(side / scale));
      return resize((part) => strips(bitmap, part, scale), tall, wide, preparation, bitmap);
    });
  } finally {
    bitmap.close();
  }
}

/** Decodes a photo and turns it upright. No colour profile is applied, as in OpenCV. */
async function decode(photo) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo, options);
  } catch {
    throw problem("This is no photo that the browser can read, or it is damaged.");
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    bitmap.close();
    throw problem(`This photo is too large: expected at most ${MOST_PIXELS / 1e6} megapixels.`);
  }
  return bitmap;
}

const drawn = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

/** Throws if reading a canvas returns other pixels than were drawn, as browsers with tracking protection may do. */
function requireTruePixels() {
  const side = 16;
  const context = drawn(new OffscreenCanvas(side, side));
  const given = context.createImageData(side, side);
  given.data.forEach((_, place) => { given.data[place] = place % 4 === 3 ? 255 : (37 * place) % 256; });
  context.putImageData(given, 0, 0);
  const found = context.getImageData(0, 0, side, side).data;
  if (found.some((value, place) => Math.abs(value - given.data[place]) > 2)) {
    throw problem("This browser does not let pages read photos (canvas data): allow it for this page.");
  }
}

/** The factor by which temper/photos.py reduces the sides of a large JPEG while decoding it; 1 for none. */
export function reduction(full, wanted) {
  const isEnough = (scale) => ["height", "width"].every((side) => {
    const beyond = (Math.ceil(full[side] / scale) * scale - full[side]) / full[side];
    return full[side] >= 2 * wanted[side] * scale && beyond * wanted[side] <= LARGEST_SHIFT;
  });
  return REDUCTIONS.find(isEnough) ?? 1;
}

/** Yields the rows of a part of a decoded and perhaps reduced photo, from the top: RGBA, several rows at a time. */
function* strips(bitmap, part, scale) {
  const left = part.left * scale, width = Math.min(part.width * scale, bitmap.width - left);
  const end = Math.min((part.top + part.height) * scale, bitmap.height);
  const rows = scale * Math.max(1, Math.floor(STRIP / width / scale));
  const context = drawn(new OffscreenCanvas(width, Math.min(rows, end - part.top * scale)));
  context.globalCompositeOperation = "copy"; // replace the previous strip, also where the new one is transparent
  for (let top = part.top * scale; top < end; top += rows) {
    const height = Math.min(rows, end - top);
    context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    yield scale === 1 ? data : reduced(data, height, width, scale);
  }
}

/** RGBA reduced by averaging squares of pixels; the squares at the right and at the bottom may be incomplete. */
export function reduced(rgba, height, width, scale) {
  const down = Math.ceil(height / scale), across = Math.ceil(width / scale);
  const found = new Uint8ClampedArray(4 * down * across);
  for (let row = 0; row < down; row++) {
    const rows = Math.min(scale, height - row * scale);
    for (let column = 0; column < across; column++) {
      const columns = Math.min(scale, width - column * scale), start = 4 * (row * scale * width + column * scale);
      let red = 0, green = 0, blue = 0;
      for (let y = 0; y < rows; y++) {
        for (let place = start + 4 * y * width, last = place + 4 * columns; place < last; place += 4) {
          red += rgba[place];
          green += rgba[place + 1];
          blue += rgba[place + 2];
        }
      }
      const target = 4 * (row * across + column), count = rows * columns;
      found[target] = red / count; // a Uint8ClampedArray rounds by itself
      found[target + 1] = green / count;
      found[target + 2] = blue / count;
    }
  }
  return found;
}

/** Rounds as Python and OpenCV do: a half to the nearest even number. */
export function round(value) {
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/**
 * A photo resized to the size and fit of a preparation.
 *
 * @param read returns the rows of a part of the photo ({top, left, height, width}), as `strips` does
 * @param {number} tall the height of the photo
 * @param {number} wide the width of the photo
 * @param full the photo's height and width before it was reduced, from which the position of the bars of "pad" follows
 */
export function resize(read, tall, wide, { height, width, fit }, full = { height: tall, width: wide }) {
  const whole = { top: 0, left: 0, height: tall, width: wide };
  if (fit === "stretch" || (tall === height && wide === width)) return scale(read(whole), whole, height, width);
  if (fit === "crop") {
    const ratio = Math.max(height / tall, width / wide);
    const part = {
      height: Math.min(tall, Math.max(1, round(height / ratio))),
      width: Math.min(wide, Math.max(1, round(width / ratio))),
    };
    part.top = Math.floor((tall - part.height) / 2);
    part.left = Math.floor((wide - part.width) / 2);
    return scale(read(part), part, height, width);
  }
  const ratio = Math.min(height / full.height, width / full.width);
  const inside = { height: Math.max(1, round(full.height * ratio)), width: Math.max(1, round(full.width * ratio)) };
  const scaled = scale(read(whole), whole, inside.height, inside.width);
  const framed = new Uint8ClampedArray(height * width * 3);
  const top = Math.floor((height - inside.height) / 2), left = Math.floor((width - inside.width) / 2);
  for (let row = 0; row < inside.height; row++) {
    const line = scaled.subarray(row * inside.width * 3, (row + 1) * inside.width * 3);
    framed.set(line, ((top + row) * width + left) * 3);
  }
  return framed;
}

/** Rows of RGBA -> RGB of another size. Each kind of scaling is a weighted sum along rows, then along columns. */
function scale(rows, part, height, width) {
  const shrinks = height < part.height || width < part.width;
  const weights = !shrinks ? cubic : height <= part.height && width <= part.width ? area : linear;
  const across = weights(part.width, width), down = bySource(weights(part.height, height), part.height);
  const sums = new Float32Array(height * width * 3), line = new Float32Array(width * 3);
  let row = 0;
  for (const strip of rows) {
    for (let start = 0; start < strip.length; start += 4 * part.width, row++) {
      if (!down[row].length) continue;
      scaleRow(strip, start, across, line);
      for (const [target, weight] of down[row]) {
        const offset = target * line.length;
        for (let place = 0; place < line.length; place++) sums[offset + place] += weight * line[place];
      }
    }
  }
  return Uint8ClampedArray.from(sums, round);
}

/** Scales one row of RGBA, which begins at `start`, to a row of RGB. */
function scaleRow(rgba, start, across, line) {
  for (let column = 0; column < across.length; column++) {
    let red = 0, green = 0, blue = 0;
    const { first, weights } = across[column];
    for (let tap = 0; tap < weights.length; tap++) {
      const place = start + 4 * (first + tap), weight = weights[tap];
      red += weight * rgba[place];
      green += weight * rgba[place + 1];
      blue += weight * rgba[place + 2];
    }
    line[3 * column] = red;
    line[3 * column + 1] = green;
    line[3 * column + 2] = blue;
  }
}

/** The same weights, grouped by old row: for each old row, pairs [new row, weight]. */
function bySource(targets, count) {
  const found = Array.from({ length: count }, () => []);
  targets.forEach(({ first, weights }, target) => {
    weights.forEach((weight, tap) => { if (weight) found[first + tap].push([target, weight]); });
  });
  return found;
}

/** Shrinking: each new pixel is the mean of the area it covers. Returns for each: its first old pixel, the weights. */
export function area(old, wanted) {
  const step = old / wanted;
  return Array.from({ length: wanted }, (_, place) => {
    const start = place * step, end = Math.min(old, start + step);
    const first = Math.floor(start), weights = [];
    for (let pixel = first; pixel < end; pixel++) {
      weights.push((Math.min(end, pixel + 1) - Math.max(start, pixel)) / (end - start));
    }
    return { first, weights };
  });
}

/** Enlarging: cubic interpolation of four old pixels; beyond the edge, the outermost pixel is repeated. */
export function cubic(old, wanted) {
  const step = old / wanted;
  return Array.from({ length: wanted }, (_, place) => {
    const middle = (place + 0.5) * step - 0.5, before = Math.floor(middle);
    return atEdges([-1, 0, 1, 2].map((tap) => [before + tap, kernel(Math.abs(middle - before - tap))]), old);
  });
}

function kernel(distance) {
  const a = SHARPNESS, x = distance;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/**
 * Enlarging one side while shrinking the other: OpenCV's area interpolation then interpolates between two pixels along
 * each side. The result is not continuous, so even the rounding of intermediate numbers must be the same.
 */
export function linear(old, wanted) {
  const ratio = wanted / old, step = 1 / ratio;
  return Array.from({ length: wanted }, (_, place) => {
    const before = Math.floor(place * step);
    const beyond = Math.fround(place + 1 - (before + 1) * ratio);
    const share = beyond <= 0 ? 0 : beyond - Math.floor(beyond);
    return atEdges([[before, 1 - share], [before + 1, share]], old);
  });
}

/** The weights of pixels; the weights of those beyond an edge are added to the outermost pixel. */
function atEdges(taps, old) {
  const inside = (pixel) => Math.min(old - 1, Math.max(0, pixel));
  const first = inside(taps[0][0]);
  const weights = new Array(inside(taps.at(-1)[0]) - first + 1).fill(0);
  for (const [pixel, weight] of taps) weights[inside(pixel) - first] += weight;
  return { first, weights };
}
