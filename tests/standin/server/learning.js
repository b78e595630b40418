"use strict";

/* Asks machine learning as server/src/repositories/machine-learning.repository.ts of v2.7.2 does: the first URL that answers. */

const TASKS = {
  clip: { visual: { modelName: "ViT-B-32__openai" } },
  "facial-recognition": {
    detection: { modelName: "buffalo_l", options: { minScore: 0.7 } },
    recognition: { modelName: "buffalo_l" },
  },
  ocr: {
    detection: { modelName: "PP-OCRv5_mobile", options: { minScore: 0.5, maxResolution: 736 } },
    recognition: { modelName: "PP-OCRv5_mobile", options: { minScore: 0.8 } },
  },
};
const TEXT_SEARCH = { clip: { textual: { modelName: "ViT-B-32__openai" } } };
const TIMEOUT = 2000;

async function predict(urls, entries, name, payload) {
  const form = new FormData();
  form.append("entries", JSON.stringify(entries));
  form.append(name, payload);
  const errors = {};
  for (const url of urls) {
    try {
      const response = await fetch(new URL("/predict", url), { method: "POST", body: form, signal: AbortSignal.timeout(TIMEOUT) });
      return { status: response.status, body: await response.json() };
    } catch (error) {
      errors[url] = error.cause?.code ?? error.message;
    }
  }
  return { status: 502, body: { errors } };
}

/** What is in an image: `clip`, `facial-recognition` and `ocr`, or an error. */
async function analyze(urls, image) {
  const { status, body } = await predict(urls, TASKS, "image", new Blob([image]));
  if (status !== 200) {
    throw new Error(`Machine learning request failed for all URLs: ${JSON.stringify(body)}`);
  }
  return body;
}

module.exports = { analyze, searchText: (urls, text) => predict(urls, TEXT_SEARCH, "text", text) };
