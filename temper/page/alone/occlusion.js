// Finds where a classifier looks, as temper/explanations/occlusion.py does: by hiding one part of the image at a time.

import { round } from "./preparation.js";

const GRID = 7; // cells down and across
const WIDTH = 2; // side of the hidden square, in cells
const LEAST = 1.1754943508222875e-38; // the smallest normal float32

/**
 * By how much the log-odds of the most probable class fall when a part of the image is hidden.
 *
 * @param predict returns the probabilities of an image
 * @param {Uint8ClampedArray} image height * width * 3 values, 0-255
 * @returns the probabilities of the image, and the map: rows of numbers; above 0, the part is evidence for the class
 */
export async function occlusionMap(predict, image, height, width) {
  const probabilities = await predict(image);
  const predicted = probabilities.indexOf(Math.max(...probabilities));
  const whole = logOdds(probabilities, predicted), colour = mean(image), map = [];
  for (let row = 0; row < GRID; row++) {
    map.push([]);
    for (let column = 0; column < GRID; column++) {
      const shown = hidden(image, width, around(row, height), around(column, width), colour);
      map[row].push(whole - logOdds(await predict(shown), predicted));
    }
  }
  return { probabilities, map };
}

/** The mean colour of the image, in which the hidden square is painted: it is the least conspicuous one. */
function mean(image) {
  const sums = [0, 0, 0];
  image.forEach((value, place) => { sums[place % 3] += value; });
  return sums.map((sum) => round((3 * sum) / image.length));
}

/** The range of pixels hidden around a cell, along one side of the image: the first, and the one after the last. */
function around(place, side) {
  const [start, end] = [-1, 1].map((sign) => round(((place + 0.5 + (sign * WIDTH) / 2) * side) / GRID));
  return [Math.max(start, 0), Math.min(end, side)];
}

function hidden(image, width, [top, bottom], [left, right], colour) {
  const found = image.slice();
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) found.set(colour, 3 * (row * width + column));
  }
  return found;
}

/** ln(p / (1 - p)), with 1 - p computed as the sum of the other probabilities, which stays precise near 0. */
function logOdds(probabilities, number) {
  const others = probabilities.reduce((sum, value, place) => (place === number ? sum : sum + value), 0);
  return Math.log(Math.max(probabilities[number], LEAST)) - Math.log(Math.max(others, LEAST));
}
