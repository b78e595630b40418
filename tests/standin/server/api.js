"use strict";

/* The routes of Immich that the formula uses, and the stand-in's own below /standin. */

const fs = require("node:fs");
const http = require("node:http");
const accounts = require("./accounts");
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

async function config({ pool, settings }) {
  const isInitialized = (await accounts.adminOf(pool)) !== undefined;
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

function loggedIn(handler, access = {}) {
  return async (context, request) => {
    await accounts.authenticate(context.pool, request.headers, access);
    return handler(context, request);
  };
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
  "GET /api/system-config": loggedIn(systemConfig, { admin: true, permission: "systemConfig.read" }),
  "PUT /api/system-config": loggedIn(updateSystemConfig, { admin: true, permission: "systemConfig.update" }),
  "GET /standin/headers": headers,
};

async function readBody(request) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BODY) {
      throw new accounts.Refusal(413, "body is too large");
    }
  }
  try {
    return text === "" ? {} : JSON.parse(text);
  } catch (error) {
    throw new accounts.Refusal(400, error.message);
  }
}

async function answer(context, request) {
  const { pathname } = new URL(request.url, "http://localhost");
  const route = `${request.method} ${pathname}`;
  const ofAccounts = accounts.find(request.method, pathname);
  const handler = REQUEST_ROUTES[route] ?? ROUTES[route];
  if (handler === undefined && ofAccounts === undefined) {
    return failure(404, `Cannot ${route}`);
  }
  try {
    if (ofAccounts !== undefined) {
      return await accounts.answer(context, ofAccounts, request, readBody);
    }
    return await handler(context, route in REQUEST_ROUTES ? request : await readBody(request));
  } catch (error) {
    if (error instanceof accounts.Refusal) {
      return error.answer;
    }
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
  if (body === undefined) {
    response.writeHead(status).end();
    return;
  }
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
