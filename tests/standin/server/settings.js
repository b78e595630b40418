"use strict";

/*
 * Immich's own settings, as server/src/utils/config.ts and server/src/dtos/config.dto.ts of v3.3 have them: a file replaces
 * those in the database and is laid over the defaults; what is not known is logged, with its values; a wrong value in a file
 * stops the server, with the name of each. Read after the migrations (SystemConfigService, the last to bootstrap).
 */

const fs = require("node:fs");
const { load } = require("js-yaml");
const database = require("./database");
const DEFAULTS = require("./settings.json");
const log = require("./log");

const KEY = "system-config";
const VIDEO = ["h264", "hevc", "vp9", "av1"];
const AUDIO = ["mp3", "aac", "libopus", "opus", "pcm_s16le"];

const oneOf = (...values) => (value) =>
  values.includes(value) ? undefined : `Invalid option: expected one of ${values.map((each) => JSON.stringify(each)).join("|")}`;
const from = (least, most = Infinity) => (value) => {
  if (value < least) {
    return `Too small: expected number to be >=${least}`;
  }
  return value > most ? `Too big: expected number to be <=${most}` : undefined;
};
const url = (message) => (value) => (value === "" || URL.canParse(value) ? undefined : message);
const RANGES = [[0, 59], [0, 23], [1, 31], [1, 12], [0, 7]];

/** As far as the package `cron` is, of which Immich asks the same. */
function cron(value) {
  const fields = value.trim().split(/\s+/).slice(-5);
  const wrong = fields.flatMap((field, at) => field.split(/[,/-]/).filter((each) => /^\d+$/.test(each) && from(...RANGES[at])(Number(each))));
  if (fields.length < 5) {
    return "Invalid cron expression. Too few fields";
  }
  return wrong.length > 0 ? `Invalid cron expression. Field value (${wrong[0]}) is out of range` : undefined;
}

// By the end of a setting's name; the others have the type of their default.
const RULES = {
  "ffmpeg.accel": oneOf("nvenc", "qsv", "vaapi", "rkmpp", "disabled"),
  "ffmpeg.crf": from(0, 51),
  "ffmpeg.targetAudioCodec": oneOf(...AUDIO),
  "ffmpeg.targetVideoCodec": oneOf(...VIDEO),
  "logging.level": oneOf(...log.LEVELS),
  "oauth.issuerUrl": url("Issuer URL must be an empty string or a valid URL"),
  "oauth.timeout": from(1),
  "oauth.tokenEndpointAuthMethod": oneOf("client_secret_post", "client_secret_basic"),
  "server.externalDomain": url("External domain must be an empty string or a valid URL"),
  "trash.days": from(0),
  "user.deleteDelay": from(1),
  ".concurrency": from(1),
  ".cronExpression": cron,
  ".keepLastAmount": from(1),
  ".quality": from(1, 100),
};

function kind(value) {
  if (value === null) {
    return "null";
  }
  return Array.isArray(value) ? "array" : typeof value;
}

function isObject(value) {
  return kind(value) === "object";
}

/** What is wrong with a value, by the rules and by the type of its default. */
function wrong(name, value, fallback) {
  if (name === "oauth.defaultStorageQuota" && value === null) {
    return undefined;
  }
  const expected = kind(fallback ?? 0);
  const boolean = expected === "boolean" && ["true", "false"].includes(value);
  if (kind(value) !== expected && !boolean) {
    return `Invalid input: expected ${expected}, received ${kind(value)}`;
  }
  const rule = Object.keys(RULES).find((end) => name.endsWith(end));
  return rule && RULES[rule](value);
}

function* leaves(tree, path = []) {
  for (const [key, value] of Object.entries(tree)) {
    if (isObject(value)) {
      yield* leaves(value, [...path, key]);
    } else {
      yield [[...path, key], value];
    }
  }
}

function at(tree, path) {
  return path.reduce((below, key) => (isObject(below) ? below[key] : undefined), tree);
}

function place(tree, path, value) {
  const section = path.slice(0, -1).reduce((below, key) => (isObject(below[key]) ? below[key] : (below[key] = {})), tree);
  section[path.at(-1)] = value;
}

function problems(config) {
  const found = [];
  for (const [path, fallback] of leaves(DEFAULTS)) {
    const message = wrong(path.join("."), at(config, path), fallback);
    if (message) {
      found.push(`  - [${path.join(".")}] ${message}`);
    }
  }
  const { mobileOverrideEnabled, mobileRedirectUri } = config.oauth ?? {};
  if (mobileOverrideEnabled && mobileRedirectUri && !URL.canParse(mobileRedirectUri)) {
    found.push("  - [oauth] Mobile redirect URI must be an empty string or a valid URL");
  }
  return found;
}

function readFile(file) {
  try {
    return load(fs.readFileSync(file, "utf8"));
  } catch (error) {
    log.write("error", "Microservices:ConfigRepository", `Unable to load configuration file: ${file}`);
    throw error;
  }
}

async function read(pool, { configFile, machineLearningUrl }) {
  const stored = configFile ? undefined : await database.one(pool, "SELECT value FROM system_metadata WHERE key = $1", [KEY]);
  const partial = (configFile ? readFile(configFile) : stored?.value) ?? {};
  const config = structuredClone(DEFAULTS);
  if (machineLearningUrl) {
    config.machineLearning.urls = [machineLearningUrl];
  }
  const unknown = {};
  for (const [path, value] of leaves(partial)) {
    place(config, path, value);
    if (at(DEFAULTS, path) === undefined) {
      place(unknown, path, value);
    }
  }
  if (Object.keys(unknown).length > 0) {
    log.write("warn", "Microservices:ConfigRepository", `Unknown keys found: ${JSON.stringify(unknown, null, 2)}`);
  }
  const found = problems(config);
  if (found.length > 0 && configFile) {
    throw new Error(["Invalid system config: ", ...found].join("\n"));
  }
  if (config.server.externalDomain) {
    config.server.externalDomain = new URL(config.server.externalDomain).origin;
  }
  return config;
}

/** What the page Administration > Settings does. With a file it may not. */
async function save(pool, settings, config) {
  if (settings.configFile) {
    return [400, { message: "Cannot update configuration while IMMICH_CONFIG_FILE is in use", statusCode: 400 }];
  }
  const found = problems(config);
  if (found.length > 0) {
    return [400, { message: found, statusCode: 400 }];
  }
  await pool.query(
    "INSERT INTO system_metadata (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    [KEY, JSON.stringify(config)],
  );
  return [200, await read(pool, settings)];
}

/** What everybody may know: server/src/services/server.service.ts. */
function features(settings, { machineLearning, ...config }) {
  return {
    smartSearch: machineLearning.enabled && machineLearning.clip.enabled,
    facialRecognition: machineLearning.enabled && machineLearning.facialRecognition.enabled,
    duplicateDetection: machineLearning.enabled && machineLearning.duplicateDetection.enabled,
    map: config.map.enabled,
    reverseGeocoding: config.reverseGeocoding.enabled,
    importFaces: config.metadata.faces.import,
    sidecar: true,
    search: true,
    trash: config.trash.enabled,
    oauth: config.oauth.enabled,
    oauthAutoLaunch: config.oauth.autoLaunch,
    passwordLogin: config.passwordLogin.enabled,
    configFile: Boolean(settings.configFile),
    email: config.notifications.smtp.enabled,
  };
}

function shown(config) {
  return {
    loginPageMessage: config.server.loginPageMessage,
    trashDays: config.trash.days,
    userDeleteDelay: config.user.deleteDelay,
    oauthButtonText: config.oauth.buttonText,
    externalDomain: config.server.externalDomain,
    publicUsers: config.server.publicUsers,
    mapDarkStyleUrl: config.map.darkStyle,
    mapLightStyleUrl: config.map.lightStyle,
  };
}

module.exports = { features, read, save, shown };
