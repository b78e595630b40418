"use strict";

/* Marker files that guard against a missing mount, and the stand-in's own "photos". */

const crypto = require("node:crypto");
const fs = require("node:fs/promises");
const path = require("node:path");
const database = require("./database");
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

function embedding() {
  return JSON.stringify(Array.from({ length: 512 }, () => Math.random()));
}

/** The rows of a file that is in its place. */
async function record(pool, { id, file, name, checksum }) {
  await pool.query(`INSERT INTO asset (id, "originalPath", "originalFileName", checksum) VALUES ($1, $2, $3, $4)`, [
    id,
    file,
    name,
    checksum,
  ]);
  await pool.query(`INSERT INTO smart_search ("assetId", embedding) VALUES ($1, $2)`, [id, embedding()]);
  await pool.query(`INSERT INTO face_search (embedding) VALUES ($1)`, [embedding()]);
}

async function addAsset(pool, mediaLocation) {
  const content = crypto.randomBytes(1024);
  const checksum = crypto.createHash("sha1").update(content).digest();
  const id = crypto.randomUUID();
  const file = path.join(mediaLocation, "upload", `${id}.jpg`);
  await fs.writeFile(file, content, { flag: "wx" });
  await record(pool, { id, file, name: `stand-in ${id}.jpg`, checksum });
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
