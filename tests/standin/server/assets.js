"use strict";

/* Upload, as Immich's API has them: what a person does first, and what a reverse proxy has to let through. */

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { pipeline } = require("node:stream/promises");
const { Transform } = require("node:stream");
const busboy = require("busboy");
const database = require("./database");
const storage = require("./storage");

/** Write a stream to a file as it comes in; the promise has what came. */
async function receive(stream, file) {
  const sha1 = crypto.createHash("sha1");
  let size = 0;
  const tap = new Transform({
    transform(chunk, _encoding, done) {
      sha1.update(chunk);
      size += chunk.length;
      done(null, chunk);
    },
  });
  await pipeline(stream, tap, fs.createWriteStream(file, { flags: "wx" }));
  return { size, checksum: sha1.digest() };
}

/** The form of an upload: its fields, and the file `assetData`, which is written to `file`. */
async function readForm(request, file) {
  const form = busboy({ headers: request.headers });
  const fields = {};
  let received;
  form.on("field", (name, value) => {
    fields[name] = value;
  });
  form.on("file", (name, stream, { filename }) => {
    if (name !== "assetData" || received !== undefined) {
      stream.resume();
      return;
    }
    fields.filename ??= filename;
    received = receive(stream, file);
    received.catch((error) => form.destroy(error));
  });
  await pipeline(request, form);
  return { fields, ...(await received) };
}

async function upload(pool, settings, request) {
  const { mediaLocation } = settings;
  const id = crypto.randomUUID();
  const part = path.join(mediaLocation, "upload", `${id}.part`);
  try {
    const { fields, checksum, size } = await readForm(request, part);
    const missing = ["fileCreatedAt", "fileModifiedAt"].filter((name) => Number.isNaN(Date.parse(fields[name])));
    if (checksum === undefined || missing.length > 0) {
      return [400, { message: `wanted: assetData ${missing.join(" ")}`, statusCode: 400 }];
    }
    const known = await database.one(pool, "SELECT id FROM asset WHERE checksum = $1", [checksum]);
    if (known !== undefined) {
      return [200, { id: known.id, status: "duplicate" }];
    }
    const file = path.join(mediaLocation, "upload", `${id}${path.extname(fields.filename ?? "")}`);
    await fs.promises.rename(part, file);
    await storage.record(pool, settings, { id, file, name: fields.filename, checksum });
    return [201, { id, status: "created", size }];
  } finally {
    await fs.promises.rm(part, { force: true });
  }
}

async function statistics(pool) {
  return database.one(
    pool,
    `SELECT count(*) FILTER (WHERE NOT video)::int AS images, count(*) FILTER (WHERE video)::int AS videos, count(*)::int AS total
     FROM (SELECT "originalFileName" ~* '\\.(mp4|mov)$' AS video FROM asset) AS assets`,
  );
}

module.exports = { statistics, upload };
