"use strict";

/* Reads the environment as strictly as Immich 3 does: a value that is there and wrong, empty ones included, stops the start. */

const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { LEVELS } = require("./log");

const FROM_FILE = ["DB_URL", "DB_HOSTNAME", "DB_DATABASE_NAME", "DB_USERNAME", "DB_PASSWORD", "REDIS_PASSWORD"];
const WORKERS = ["api", "microservices"];
const TELEMETRIES = ["host", "api", "io", "repo", "job"];
const NAMED_RANGES = ["loopback", "linklocal", "uniquelocal"];

const oneOf = (...values) => (value) => values.includes(value);
const integer = (value) => /^\d+$/.test(value);
const port = (value) => integer(value) && Number(value) >= 1 && Number(value) <= 65535;
const boolean = oneOf("true", "false");
const list = (allowed) => (value) => {
  const names = asList(value);
  return names.length > 0 && names.every((name) => allowed.includes(name));
};

const RULES = {
  DB_PORT: port,
  DB_SKIP_MIGRATIONS: boolean,
  DB_SSL_MODE: oneOf("disable", "allow", "prefer", "require", "verify-full"),
  DB_VECTOR_EXTENSION: oneOf("vectorchord", "pgvector"),
  IMMICH_ALLOW_SETUP: boolean,
  IMMICH_API_METRICS_PORT: port,
  IMMICH_CONFIG_FILE: (value) => value !== "",
  IMMICH_ENV: oneOf("production", "development", "testing"),
  IMMICH_HOST: (value) => value !== "",
  IMMICH_IGNORE_MOUNT_CHECK_ERRORS: boolean,
  IMMICH_LOG_LEVEL: oneOf(...LEVELS),
  IMMICH_MACHINE_LEARNING_URL: (value) => /^https?:$/.test(URL.canParse(value) ? new URL(value).protocol : ""),
  IMMICH_MEDIA_LOCATION: (value) => path.isAbsolute(value),
  IMMICH_MICROSERVICES_METRICS_PORT: port,
  IMMICH_PORT: port,
  IMMICH_TELEMETRY_EXCLUDE: list(TELEMETRIES),
  IMMICH_TELEMETRY_INCLUDE: list([...TELEMETRIES, "all"]),
  IMMICH_TRUSTED_PROXIES: (value) => asList(value).length > 0 && asList(value).every(isRange),
  IMMICH_WORKERS_EXCLUDE: list(WORKERS),
  IMMICH_WORKERS_INCLUDE: list(WORKERS),
  REDIS_DBINDEX: integer,
  REDIS_PORT: port,
  TZ: isTimeZone,
};

function asList(value) {
  return (value ?? "").split(",").map((name) => name.trim()).filter(Boolean);
}

function isRange(value) {
  const [address, bits, ...rest] = value.split("/");
  const family = net.isIP(address);
  if (family === 0) {
    return NAMED_RANGES.includes(value);
  }
  return rest.length === 0 && (bits === undefined || (integer(bits) && Number(bits) <= (family === 4 ? 32 : 128)));
}

function isTimeZone(value) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: value });
    return true;
  } catch {
    return false;
  }
}

/** A legacy zone name that the image's time zone files lack silently means UTC. */
function effectiveTimeZone(zone) {
  if (zone === undefined) {
    return "UTC";
  }
  return fs.existsSync(path.join("/usr/share/zoneinfo", zone)) ? zone : "UTC";
}

/** The content without trailing newlines, as a shell's $(< file) gives it; empty when the file cannot be read. */
function readSecret(file) {
  try {
    return fs.readFileSync(file, "utf8").replace(/\n+$/, "");
  } catch (error) {
    process.stderr.write(`${file}: ${error.code === "EACCES" ? "Permission denied" : error.code}\n`);
    return "";
  }
}

/** The environment with the six settings that may come from files put in place. */
function withSecrets(environment) {
  const merged = { ...environment };
  for (const name of FROM_FILE) {
    const credential = path.join(environment.CREDENTIALS_DIRECTORY || "/nonexistent", name);
    const file = environment[`${name}_FILE`] || (fs.existsSync(credential) ? credential : undefined);
    if (file !== undefined) {
      merged[name] = readSecret(file);
    }
  }
  return merged;
}

function validate(environment) {
  const wrong = Object.entries(RULES)
    .filter(([name, accepts]) => environment[name] !== undefined && !accepts(environment[name]))
    .map(([name]) => `${name}=${environment[name]}`);
  if (wrong.length > 0) {
    throw new Error(`Invalid environment variables: ${wrong.join(", ")}`);
  }
}

function workersOf(environment) {
  const included = asList(environment.IMMICH_WORKERS_INCLUDE);
  const excluded = asList(environment.IMMICH_WORKERS_EXCLUDE);
  return (included.length > 0 ? included : WORKERS).filter((name) => !excluded.includes(name));
}

/** As server/src/repositories/config.repository.ts: `all` is every one, and what is excluded is taken away. */
function telemetryOf(environment) {
  const all = environment.IMMICH_TELEMETRY_INCLUDE === "all";
  const included = all ? TELEMETRIES : asList(environment.IMMICH_TELEMETRY_INCLUDE);
  const excluded = asList(environment.IMMICH_TELEMETRY_EXCLUDE);
  return {
    metrics: included.filter((name) => !excluded.includes(name)),
    ports: {
      api: Number(environment.IMMICH_API_METRICS_PORT || 8081),
      microservices: Number(environment.IMMICH_MICROSERVICES_METRICS_PORT || 8082),
    },
  };
}

function databaseOf(environment) {
  if (environment.DB_URL) {
    return { url: environment.DB_URL };
  }
  return {
    host: environment.DB_HOSTNAME || "database",
    port: Number(environment.DB_PORT || 5432),
    user: environment.DB_USERNAME || "postgres",
    password: environment.DB_PASSWORD || "postgres",
    database: environment.DB_DATABASE_NAME || "immich",
    sslMode: environment.DB_SSL_MODE,
  };
}

function valkeyOf(environment) {
  const url = environment.REDIS_URL;
  if (url?.startsWith("ioredis://")) {
    return JSON.parse(Buffer.from(url.slice("ioredis://".length), "base64").toString());
  }
  if (environment.REDIS_SOCKET) {
    return { ...valkeyLogin(environment), path: environment.REDIS_SOCKET };
  }
  return {
    ...valkeyLogin(environment),
    host: environment.REDIS_HOSTNAME || "redis",
    port: Number(environment.REDIS_PORT || 6379),
  };
}

function valkeyLogin(environment) {
  return {
    db: Number(environment.REDIS_DBINDEX || 0),
    username: environment.REDIS_USERNAME || undefined,
    password: environment.REDIS_PASSWORD || undefined,
  };
}

/** Switches that only the stand-in has: the tests' way to an image that fails. */
function faultsOf(environment) {
  return {
    crashAfter: environment.STANDIN_CRASH_AFTER === undefined ? null : Number(environment.STANDIN_CRASH_AFTER),
    startDelay: Number(environment.STANDIN_START_DELAY ?? 0),
    exitAfterMigrations: environment.STANDIN_EXIT_AFTER_MIGRATIONS === "true",
    versionDelay: Number(environment.STANDIN_VERSION_DELAY ?? 9),
    neverHealthy: environment.STANDIN_NEVER_HEALTHY === "true",
    ignoreSigterm: environment.STANDIN_IGNORE_SIGTERM === "true",
  };
}

function readSettings(processEnvironment) {
  const environment = withSecrets(processEnvironment);
  validate(environment);
  return {
    version: environment.STANDIN_VERSION ?? "v0.0.0",
    host: environment.IMMICH_HOST,
    port: Number(environment.IMMICH_PORT ?? 2283),
    environment: environment.IMMICH_ENV ?? "production",
    logLevel: environment.IMMICH_LOG_LEVEL ?? "log",
    timezone: effectiveTimeZone(environment.TZ),
    allowSetup: environment.IMMICH_ALLOW_SETUP !== "false",
    ignoreMountErrors: environment.IMMICH_IGNORE_MOUNT_CHECK_ERRORS === "true",
    mediaLocation: environment.IMMICH_MEDIA_LOCATION ?? "/data",
    workers: workersOf(environment),
    database: databaseOf(environment),
    skipMigrations: environment.DB_SKIP_MIGRATIONS === "true",
    vectorExtension: { vectorchord: "vchord", pgvector: "vector" }[environment.DB_VECTOR_EXTENSION],
    valkey: valkeyOf(environment),
    configFile: environment.IMMICH_CONFIG_FILE,
    machineLearningUrl: environment.IMMICH_MACHINE_LEARNING_URL,
    telemetry: telemetryOf(environment),
    faults: faultsOf(environment),
  };
}

module.exports = { readSettings };
