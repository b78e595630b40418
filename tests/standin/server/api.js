"use strict";

/* The routes of Immich that the formula uses, and the stand-in's own below /standin. */

const fs = require("node:fs");
const http = require("node:http");
const assets = require("./assets");
const database = require("./database");
const learning = require("./learning");
const log = require("./log");
const oauth = require("./oauth");
const ownSettings = require("./settings");
const storage = require("./storage");
const valkey = require("./valkey");
const versions = require("./versions");
const websocket = require("./websocket");

const CONTEXT = "Api:Bootstrap";
const FAULT_FILE = "/tmp/standin-unhealthy";
const MAX_BODY = 1024 * 1024;
const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Stand-in for Immich</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto">
<h1>Stand-in for the Immich server</h1>
<p>This is not Immich. It is the small program that the tests and the demo of immich-formula run in its place: as strict
about its environment, PostgreSQL and Valkey, without any photo management.</p>
<p><a href="/standin/state">What it found</a>, <a href="/api/server/version">the version it plays</a></p>`;

const failure = (status, message) => [status, { message, statusCode: status }];

function ping({ settings }) {
  if (settings.faults.neverHealthy || fs.existsSync(FAULT_FILE)) {
    return failure(503, "The stand-in was told to be unhealthy");
  }
  return [200, { res: "pong" }];
}

function version({ settings }) {
  const [major, minor, patch] = versions.parse(settings.version);
  return [200, { major, minor, patch }];
}

async function hasAdmin(pool) {
  return (await database.one(pool, `SELECT 1 FROM "user" WHERE "isAdmin"`)) !== undefined;
}

async function config({ pool, settings }) {
  const isInitialized = await hasAdmin(pool);
  const isOnboarded = isInitialized || Boolean(settings.configFile);
  return [200, { ...ownSettings.shown(settings.config), isInitialized, isOnboarded, maintenanceMode: false }];
}

function features({ settings }) {
  return [200, ownSettings.features(settings, settings.config)];
}

function systemConfig({ settings }) {
  return [200, settings.config];
}

async function updateSystemConfig({ pool, settings }, request) {
  const [status, body] = await ownSettings.save(pool, settings, await readBody(request));
  if (status === 200) {
    settings.config = body;
  }
  return [status, body];
}

function startOAuth({ settings }, body) {
  return oauth.authorize(settings.config, body);
}

function finishOAuth(context, body) {
  return oauth.callback(context, context.settings.config, body);
}

async function signUp({ pool, settings }, body) {
  if (!settings.allowSetup) {
    return failure(403, "Admin setup is disabled");
  }
  const texts = [body.email, body.password, body.name];
  if (!texts.every((text) => typeof text === "string" && text !== "") || !body.email.includes("@")) {
    return failure(400, "email, password and name are required");
  }
  if (await hasAdmin(pool)) {
    return failure(400, "The server already has an admin");
  }
  const row = await database.one(
    pool,
    `INSERT INTO "user" (email, name, password, "isAdmin") VALUES ($1, $2, $3, true) RETURNING id, email, name, "isAdmin"`,
    [body.email, body.name, assets.hash(body.password)],
  );
  return [201, row];
}

async function login({ pool }, body) {
  const session = await assets.login(pool, body);
  return session === undefined ? failure(401, "Incorrect email or password") : [201, session];
}

function loggedIn(handler) {
  return (context, request) => (assets.userOf(request) ? handler(context, request) : failure(401, "Authentication required"));
}

function asAdmin(handler) {
  return loggedIn((context, request) => (assets.userOf(request).isAdmin ? handler(context, request) : failure(403, "Forbidden")));
}

async function upload({ pool, settings }, request) {
  return assets.upload(pool, settings, request);
}

async function statistics({ pool }) {
  return [200, await assets.statistics(pool)];
}

async function headers(_context, request) {
  return [200, request.headers];
}

async function jobs({ queues, progress, nodes }) {
  const run = crypto.randomUUID();
  const errors = [];
  const exerciseNode = (node) =>
    valkey.withinTime(websocket.exercise(node.io)).catch((error) => errors.push(`websocket: ${error.message}`));
  const [result] = await Promise.all([valkey.exercise(queues, run, progress), ...nodes.map(exerciseNode)]);
  return [200, { ...result, errors: [...result.errors, ...errors], denied: valkey.denied() }];
}

async function machineLearning({ settings }) {
  const errors = {};
  for (const url of settings.config.machineLearning.urls) {
    try {
      const response = await fetch(new URL("/ping", url), { signal: AbortSignal.timeout(2000) });
      return [200, { url, status: response.status, answer: await response.text() }];
    } catch (error) {
      errors[url] = error.cause?.code ?? error.message;
    }
  }
  return [502, { errors }];
}

async function predict({ settings }) {
  const { status, body } = await learning.searchText(settings.config.machineLearning.urls, "a photo");
  return [status, body];
}

async function addAsset({ pool, settings }) {
  return [201, await storage.addAsset(pool, settings)];
}

async function state({ pool, settings, vectorExtension }) {
  return [
    200,
    {
      standin: true,
      version: settings.version,
      timezone: settings.timezone,
      uid: process.getuid(),
      gid: process.getgid(),
      workers: settings.workers,
      vector_extension: vectorExtension,
      database: await database.describe(pool),
      storage: await storage.describe(pool, settings.mediaLocation),
      denied: valkey.denied(),
    },
  ];
}

const ROUTES = {
  "GET /api/server/ping": ping,
  "GET /api/server/version": version,
  "GET /api/server/config": config,
  "GET /api/server/features": features,
  "POST /api/oauth/authorize": startOAuth,
  "POST /api/oauth/callback": finishOAuth,
  "POST /api/auth/admin-sign-up": signUp,
  "POST /api/auth/login": login,
  "GET /standin/state": state,
  "GET /standin/ml": machineLearning,
  "POST /standin/ml": predict,
  "POST /standin/jobs": jobs,
  "POST /standin/assets": addAsset,
};

// These are handed the request: they want its headers, or read a body of any size.
const REQUEST_ROUTES = {
  "POST /api/assets": loggedIn(upload),
  "GET /api/assets/statistics": loggedIn(statistics),
  "GET /api/system-config": asAdmin(systemConfig),
  "PUT /api/system-config": asAdmin(updateSystemConfig),
  "GET /standin/headers": headers,
};

async function readBody(request) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BODY) {
      throw new Error("body is too large");
    }
  }
  return text === "" ? {} : JSON.parse(text);
}

async function answer(context, request) {
  const { pathname } = new URL(request.url, "http://localhost");
  const route = `${request.method} ${pathname}`;
  const handler = REQUEST_ROUTES[route] ?? ROUTES[route];
  if (handler === undefined) {
    return failure(404, `Cannot ${route}`);
  }
  let input;
  try {
    input = route in REQUEST_ROUTES ? request : await readBody(request);
  } catch (error) {
    return failure(400, error.message);
  }
  try {
    return await handler(context, input);
  } catch (error) {
    log.write("error", CONTEXT, `${route}: ${error.message}`);
    return failure(500, error.message);
  }
}

async function handle(context, request, response) {
  if (request.method === "GET" && request.url === "/") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(PAGE);
    return;
  }
  const [status, body] = await answer(context, request);
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" }).end(JSON.stringify(body));
}

function createServer(context) {
  return http.createServer((request, response) => handle(context, request, response));
}

function listen(server, { host, port }) {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
}

module.exports = { createServer, listen };
