"use strict";

/*
 * What Immich does to PostgreSQL at start, in its order: version and extension checks, vector indexes, migrations, and some
 * seconds after it serves the note of its version. As in server/src/services/database.service.ts, version.service.ts and
 * server/src/repositories/database.repository.ts of v2.7.2 (commit 52605e8).
 */

const { Pool } = require("pg");
const log = require("./log");
const { RELEASES, STATEMENTS } = require("./migrations");
const { compare } = require("./versions");

const CONTEXT = "Microservices:DatabaseService";
const REPOSITORY = "Microservices:DatabaseRepository";
const MIGRATION_LOCK = 200;
const EXTENSIONS = ["uuid-ossp", "unaccent", "cube", "earthdistance", "pg_trgm"];
const VECTOR_NAMES = { vchord: "VectorChord", vector: "pgvector" };
const VECTOR_INDEXES = { clip_index: "smart_search", face_index: "face_search" };
const VERSION_HISTORY_LOCK = 500;

// Tried in this order; undefined is what Immich does when no mode is set.
const SSL_ATTEMPTS = {
  undefined: [false],
  disable: [false],
  allow: [false, { rejectUnauthorized: false }],
  prefer: [{ rejectUnauthorized: false }, false],
  require: [{ rejectUnauthorized: false }],
  "verify-full": [true],
};

function poolConfig(settings, ssl) {
  const limits = { max: 10, connectionTimeoutMillis: 10000 };
  if (settings.url) {
    return { ...limits, connectionString: settings.url };
  }
  const { sslMode, ...connection } = settings;
  return { ...limits, ...connection, ssl };
}

async function connect(settings) {
  const attempts = SSL_ATTEMPTS[settings.sslMode];
  for (const [index, ssl] of attempts.entries()) {
    const pool = new Pool(poolConfig(settings, ssl));
    pool.on("error", (error) => log.writeSeldom("error", CONTEXT, `PostgreSQL: ${error.message}`));
    try {
      await pool.query("SELECT 1");
      return pool;
    } catch (error) {
      await pool.end();
      if (index === attempts.length - 1) {
        throw error;
      }
    }
  }
}

async function one(client, text, values) {
  const { rows } = await client.query(text, values);
  return rows[0];
}

async function checkServerVersion(client) {
  const { server_version: version } = await one(client, "SHOW server_version");
  if (compare(version.split(" ")[0], "14.0.0") < 0) {
    throw new Error(`Invalid PostgreSQL version. Found ${version}, but needed >=14.0.0.`);
  }
}

async function versionsOf(client, extension) {
  const row = await one(
    client,
    "SELECT default_version AS available, installed_version AS installed FROM pg_available_extensions WHERE name = $1",
    [extension],
  );
  return row ?? { available: null, installed: null };
}

/** Left unset, the setting follows what the server offers: the trap that deployments avoid by always setting it. */
async function chooseVectorExtension(client, wanted) {
  if (wanted !== undefined) {
    return wanted;
  }
  return (await versionsOf(client, "vchord")).available === null ? "vector" : "vchord";
}

function supportedRange(extension, immichVersion) {
  if (extension === "vector") {
    return ["0.5.0", "1.0.0"];
  }
  return ["0.3.0", compare(immichVersion, "2.5.0") < 0 ? "1.0.0" : "2.0.0"];
}

function checkRange(extension, version, [lowest, limit]) {
  if (compare(version, lowest) < 0 || compare(version, limit) >= 0) {
    throw new Error(
      `The ${VECTOR_NAMES[extension]} extension version is ${version}, but only >=${lowest} <${limit} is supported.`,
    );
  }
}

async function createExtension(client, name) {
  await client.query(`CREATE EXTENSION IF NOT EXISTS "${name}" CASCADE`);
}

async function updateVectorExtension(client, extension, available) {
  log.write("log", CONTEXT, `Updating ${VECTOR_NAMES[extension]} extension to ${available}`);
  try {
    await client.query(`ALTER EXTENSION ${extension} UPDATE`);
  } catch (error) {
    log.write(
      "warn",
      CONTEXT,
      `The ${VECTOR_NAMES[extension]} extension can be updated to ${available}, but the update failed. ` +
        `Please run 'ALTER EXTENSION ${extension} UPDATE' manually as a superuser.`,
    );
    throw error;
  }
  for (const index of await existingVectorIndexes(client)) {
    await client.query(`REINDEX INDEX ${index.name}`);
  }
}

async function prepareVectorExtension(client, settings) {
  const extension = await chooseVectorExtension(client, settings.vectorExtension);
  const { available, installed } = await versionsOf(client, extension);
  if (available === null) {
    throw new Error(`The ${VECTOR_NAMES[extension]} extension is not available in this Postgres instance.`);
  }
  checkRange(extension, available, supportedRange(extension, settings.version));
  if (installed === null) {
    await createExtension(client, extension);
    return extension;
  }
  const order = compare(available, installed);
  if (order > 0) {
    await updateVectorExtension(client, extension, available);
  }
  if (order < 0) {
    throw new Error(
      `The database has ${VECTOR_NAMES[extension]} ${installed} activated, but the Postgres instance only has ${available} available.`,
    );
  }
  return extension;
}

async function existingVectorIndexes(client) {
  const { rows } = await client.query(
    `SELECT c.relname AS name, a.amname AS method FROM pg_class c JOIN pg_am a ON a.oid = c.relam
     WHERE c.relkind = 'i' AND c.relname = ANY($1) AND c.relnamespace = 'public'::regnamespace`,
    [Object.keys(VECTOR_INDEXES)],
  );
  return rows;
}

/** VectorChord's access method where it exists: a play extension named vchord, as tests make it, has none. */
async function indexMethod(client, extension) {
  if (extension === "vector") {
    return "hnsw";
  }
  return (await one(client, "SELECT 1 FROM pg_am WHERE amname = 'vchordrq'")) ? "vchordrq" : "hnsw";
}

/** Before the migrations; a table that is not there yet is left to them. */
async function prepareVectorIndexes(client, extension) {
  const method = await indexMethod(client, extension);
  const existing = new Map((await existingVectorIndexes(client)).map((index) => [index.name, index.method]));
  for (const [name, table] of Object.entries(VECTOR_INDEXES)) {
    if (existing.get(name) === method || !(await one(client, "SELECT 1 FROM pg_tables WHERE tablename = $1", [table]))) {
      continue;
    }
    log.write("log", CONTEXT, `Reindexing ${name}`);
    await createVectorIndex(client, name, method);
  }
}

async function createVectorIndex(client, name, method) {
  await client.query(`DROP INDEX IF EXISTS ${name}`);
  await client.query(`CREATE INDEX ${name} ON ${VECTOR_INDEXES[name]} USING ${method} (embedding vector_cosine_ops)`);
}

/** What kysely 0.28 finds wrong (Migrator, #ensureNoMissingMigrations and #ensureMigrationsInOrder), and what is due. */
function dueMigrations(recorded, known) {
  const missing = recorded.find((name) => !known.includes(name));
  if (missing !== undefined) {
    throw new Error(`corrupted migrations: previously executed migration ${missing} is missing`);
  }
  const place = recorded.findIndex((name, index) => known[index] !== name);
  if (place !== -1) {
    throw new Error(
      `corrupted migrations: expected previously executed migration ${recorded[place]} to be at index ${place} but ` +
        `${known[place]} was found in its place. New migrations must always have a name that comes alphabetically ` +
        "after the last executed migration.",
    );
  }
  return known.slice(recorded.length);
}

async function migrate(client, version, extension) {
  await client.query(`CREATE TABLE IF NOT EXISTS kysely_migrations (name varchar(255) PRIMARY KEY, timestamp varchar(255) NOT NULL)`);
  const recorded = (await client.query("SELECT name FROM kysely_migrations ORDER BY name")).rows.map((row) => row.name);
  const releases = RELEASES.filter((release) => compare(release.version, version) <= 0);
  const due = dueMigrations(recorded, releases.flatMap((release) => release.migrations));
  for (const name of due) {
    for (const statement of STATEMENTS[name] ?? []) {
      await client.query(statement);
    }
    await client.query("INSERT INTO kysely_migrations (name, timestamp) VALUES ($1, $2)", [name, new Date().toISOString()]);
  }
  if (recorded.length === 0) {
    const method = await indexMethod(client, extension);
    for (const name of Object.keys(VECTOR_INDEXES)) {
      await createVectorIndex(client, name, method);
    }
  }
  return due;
}

async function runMigrations(client, settings, extension) {
  const { name } = await one(client, "SELECT quote_ident(current_database()) AS name");
  await client.query(`ALTER DATABASE ${name} SET search_path TO "$user", public`);
  for (const extension of EXTENSIONS) {
    await createExtension(client, extension);
  }
  log.write("log", REPOSITORY, "Running migrations");
  await client.query("BEGIN");
  try {
    const done = await migrate(client, settings.version, extension);
    await client.query("COMMIT");
    done.forEach((name) => log.write("log", REPOSITORY, `Migration "${name}" succeeded`));
  } catch (error) {
    await client.query("ROLLBACK");
    log.write("error", REPOSITORY, `Migrations failed: ${error}`);
    // Since v3.2 (pull request 30493), in words of its own.
    if (/^corrupted migrations/.test(error.message) && compare(settings.version, "3.2.0") >= 0) {
      log.write("error", REPOSITORY, "Was Immich downgraded? A database cannot go back to an older version.");
    }
    throw error;
  }
  log.write("log", REPOSITORY, "Finished running migrations");
}

/**
 * The version, as the last thing: the handler of the bootstrap first asks the internet for a newer release, and waits for
 * that. 8.8 and 9.5 s after the first answer were seen.
 */
async function noteVersion(pool, version) {
  const current = version.replace(/^v/, "");
  const client = await pool.connect();
  try {
    await client.query("SELECT pg_advisory_lock($1)", [VERSION_HISTORY_LOCK]);
    const previous = await one(client, `SELECT version FROM version_history ORDER BY "createdAt" DESC LIMIT 1`);
    if (previous?.version !== current) {
      await client.query("INSERT INTO version_history (version) VALUES ($1)", [current]);
    }
    await client.query("SELECT pg_advisory_unlock($1)", [VERSION_HISTORY_LOCK]);
  } finally {
    client.release();
  }
}

async function prepare(pool, settings) {
  const client = await pool.connect();
  try {
    await checkServerVersion(client);
    await client.query("SELECT pg_advisory_lock($1)", [MIGRATION_LOCK]);
    const extension = await prepareVectorExtension(client, settings);
    await prepareVectorIndexes(client, extension);
    if (!settings.skipMigrations) {
      await runMigrations(client, settings, extension);
    }
    await client.query("SELECT pg_advisory_unlock($1)", [MIGRATION_LOCK]);
    return extension;
  } finally {
    client.release();
  }
}

async function readMetadata(pool, key) {
  return (await one(pool, "SELECT value FROM system_metadata WHERE key = $1", [key]))?.value;
}

async function writeMetadata(pool, key, value) {
  await pool.query(
    "INSERT INTO system_metadata (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [key, JSON.stringify(value)],
  );
}

/** What tests ask the database for: counts, migrations, extensions with their schema, vector indexes. */
async function describe(pool) {
  const counts = await one(
    pool,
    `SELECT (SELECT count(*)::int FROM "user") AS users, (SELECT count(*)::int FROM asset) AS assets,
            (SELECT count(*)::int FROM smart_search) AS smart_search, (SELECT count(*)::int FROM face_search) AS face_search,
            (SELECT count(*)::int FROM ocr_search) AS ocr_search`,
  );
  const { rows: migrations } = await pool.query("SELECT name FROM kysely_migrations ORDER BY name");
  const { rows: history } = await pool.query(`SELECT version FROM version_history ORDER BY "createdAt"`);
  const { rows: extensions } = await pool.query(
    "SELECT extname AS name, extversion AS version, extnamespace::regnamespace::text AS schema FROM pg_extension ORDER BY extname",
  );
  return {
    counts,
    migrations: migrations.map((row) => row.name),
    version_history: history.map((row) => row.version),
    extensions: Object.fromEntries(extensions.map(({ name, ...rest }) => [name, rest])),
    vector_indexes: Object.fromEntries((await existingVectorIndexes(pool)).map((index) => [index.name, index.method])),
  };
}

module.exports = { connect, describe, noteVersion, one, prepare, readMetadata, writeMetadata };
