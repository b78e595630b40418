"use strict";

/* Marker files that guard against a missing mount, and the stand-in's own "photos". */

const crypto = require("node:crypto");
const fs = require("node:fs/promises");
const path = require("node:path");
const database = require("./database");
const learning = require("./learning");
const log = require("./log");

const CONTEXT = "Microservices:StorageService";
const FOLDERS = ["encoded-video", "library", "upload", "profile", "thumbs", "backups"];
const FLAGS_KEY = "system-flags";

async function createMarker(folder, marker) {
  try {
    await fs.mkdir(folder, { recursive: true });
    await fs.writeFile(marker, `${Date.now()}`, { flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") {
      throw new Error(`Failed to create "${marker}": ${error.message}`);
    }
    log.write("warn", CONTEXT, `Found existing mount file ${marker}, skipping creation`);
  }
}

async function checkMarker(marker) {
  try {
    await fs.readFile(marker);
  } catch (error) {
    throw new Error(`Failed to read "${marker}": ${error.message}`);
  }
  try {
    // r+ writes only what is there already: a marker that is gone must never be made again.
    await fs.writeFile(marker, `${Date.now()}`, { flag: "r+" });
  } catch (error) {
    throw new Error(`Failed to write "${marker}": ${error.message}`);
  }
}

async function verifyMarkers(pool, mediaLocation) {
  const flags = (await database.readMetadata(pool, FLAGS_KEY)) ?? { mountChecks: {} };
  log.write("log", CONTEXT, `Verifying system mount folder checks, current state: ${JSON.stringify(flags)}`);
  for (const name of FOLDERS) {
    const folder = path.join(mediaLocation, name);
    const marker = path.join(folder, ".immich");
    if (!flags.mountChecks[name]) {
      await createMarker(folder, marker);
    }
    await checkMarker(marker);
    flags.mountChecks[name] = true;
  }
  await database.writeMetadata(pool, FLAGS_KEY, flags);
  log.write("log", CONTEXT, "Successfully verified system mount folder checks");
}

async function prepare(pool, settings) {
  try {
    await verifyMarkers(pool, settings.mediaLocation);
  } catch (error) {
    if (!settings.ignoreMountErrors) {
      throw error;
    }
    log.write("error", CONTEXT, error.message);
    log.write("warn", CONTEXT, "Ignoring mount folder errors");
  }
}

/** What machine learning has found, where the server keeps it: the vectors as the texts in which they come. */
async function recordFindings(pool, id, found) {
  await pool.query(`INSERT INTO smart_search ("assetId", embedding) VALUES ($1, $2)`, [id, found.clip]);
  for (const { boundingBox: box, embedding } of found["facial-recognition"]) {
    const face = await database.one(
      pool,
      `INSERT INTO asset_face ("assetId", "imageWidth", "imageHeight", "boundingBoxX1", "boundingBoxY1", "boundingBoxX2", "boundingBoxY2")
       VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
      [id, found.imageWidth, found.imageHeight, box.x1, box.y1, box.x2, box.y2],
    );
    await pool.query(`INSERT INTO face_search ("faceId", embedding) VALUES ($1, $2)`, [face.id, embedding]);
  }
  const { text, box, boxScore, textScore } = found.ocr;
  for (const [index, line] of text.entries()) {
    await pool.query(
      `INSERT INTO asset_ocr ("assetId", x1, y1, x2, y2, x3, y3, x4, y4, "boxScore", "textScore", text)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
      [id, ...box.slice(index * 8, index * 8 + 8), boxScore[index], textScore[index], line],
    );
  }
  await pool.query(`INSERT INTO ocr_search ("assetId", text) VALUES ($1, $2)`, [id, text.join(" ")]);
}

/** The rows of a file that is in its place. Immich has jobs ask machine learning later; here the answer is waited for. */
async function record(pool, settings, { id, file, name, checksum }) {
  await pool.query(`INSERT INTO asset (id, "originalPath", "originalFileName", checksum) VALUES ($1, $2, $3, $4)`, [
    id,
    file,
    name,
    checksum,
  ]);
  try {
    // The checksum takes the place of the preview that Immich sends.
    await recordFindings(pool, id, await learning.analyze(settings.config.machineLearning.urls, checksum));
  } catch (error) {
    log.write("error", "Microservices:MachineLearningRepository", error.message);
  }
}

async function addAsset(pool, settings) {
  const content = crypto.randomBytes(1024);
  const checksum = crypto.createHash("sha1").update(content).digest();
  const id = crypto.randomUUID();
  const file = path.join(settings.mediaLocation, "upload", `${id}.jpg`);
  await fs.writeFile(file, content, { flag: "wx" });
  await record(pool, settings, { id, file, name: `stand-in ${id}.jpg`, checksum });
  return { id, file, checksum: checksum.toString("hex") };
}

async function isIntact(row) {
  try {
    const content = await fs.readFile(row.originalPath);
    return crypto.createHash("sha1").update(content).digest().equals(row.checksum);
  } catch {
    return false;
  }
}

async function markers(mediaLocation) {
  const present = await Promise.all(
    FOLDERS.map((name) => fs.access(path.join(mediaLocation, name, ".immich")).then(() => true, () => false)),
  );
  return Object.fromEntries(FOLDERS.map((name, index) => [name, present[index]]));
}

/** How many files lie in the upload folder, and how many rows still have the file that was uploaded. */
async function describe(pool, mediaLocation) {
  const { rows } = await pool.query(`SELECT "originalPath", checksum FROM asset`);
  const intact = await Promise.all(rows.map(isIntact));
  const files = await fs.readdir(path.join(mediaLocation, "upload"));
  return {
    files: files.filter((name) => name !== ".immich").length,
    intact_assets: intact.filter(Boolean).length,
    markers: await markers(mediaLocation),
  };
}

module.exports = { addAsset, describe, prepare, record };
