"use strict";

/** "v3.3.1" and "0.8.0" as numbers, so that versions can be put in order. */
function parse(version) {
  const numbers = version.replace(/^v/, "").split("-")[0].split(".").map(Number);
  return [0, 1, 2].map((index) => numbers[index] ?? 0);
}

/** Negative, zero or positive as `left` is older than, the same as or newer than `right`. */
function compare(left, right) {
  const [a, b] = [parse(left), parse(right)];
  const index = [0, 1, 2].find((place) => a[place] !== b[place]);
  return index === undefined ? 0 : a[index] - b[index];
}

module.exports = { compare, parse };
