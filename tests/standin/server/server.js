"use strict";

/* Stand-in for the Immich server: not Immich, but as strict about its environment, PostgreSQL, Valkey and storage. */

const { setTimeout: sleep } = require("node:timers/promises");
const api = require("./api");
const database = require("./database");
const env = require("./env");
const log = require("./log");
const ownSettings = require("./settings");
const storage = require("./storage");
const telemetry = require("./telemetry");
const valkey = require("./valkey");
const websocket = require("./websocket");

const CONTEXT = "Bootstrap";
const STOP_SECONDS = 1.5;

/** As server/src/main.ts of Immich v3.0.3 ends for a worker that failed: the reason stands above its stack and others. */
function die(error) {
  log.write("error", "Microservices:Bootstrap", error.message || error.code);
  console.error(`microservices worker error: ${error}, stack: ${error.stack}`);
  console.error("microservices worker exited with code 1");
  console.error("Killing api process");
  process.exit(1);
}

function stopOnSignal(closers) {
  const stop = async () => {
    log.write("log", CONTEXT, "Stopping");
    const closed = Promise.allSettled(closers.map((close) => close()));
    await Promise.race([closed, sleep(STOP_SECONDS * 1000)]);
    process.exit(0);
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

async function applyFaults(faults) {
  if (faults.crashAfter !== null) {
    setTimeout(() => die(new Error("The stand-in was told to crash")), faults.crashAfter * 1000);
  }
  await sleep(faults.startDelay * 1000);
}

async function start(settings, closers) {
  const context = { settings, nodes: [], progress: new Map() };
  closers.push(...telemetry.start(context));
  await applyFaults(settings.faults);
  valkey.watchDenials();

  const server = api.createServer(context);
  for (const worker of settings.workers) {
    const node = websocket.open(settings.valkey, worker === "api" ? server : undefined);
    context.nodes.push(node);
    closers.push(node.close);
  }

  context.pool = await database.connect(settings.database);
  context.vectorExtension = await database.prepare(context.pool, settings);
  if (settings.faults.exitAfterMigrations) {
    die(new Error("The stand-in was told to exit after its migrations"));
  }
  await storage.prepare(context.pool, settings);

  const { queues, close } = valkey.openQueues(settings.valkey);
  context.queues = queues;
  closers.push(close);
  settings.config = await ownSettings.read(context.pool, settings);
  if (settings.workers.includes("microservices")) {
    closers.push(valkey.startWorkers(settings.valkey, queues, context.progress).close);
    log.write("log", "Microservices:Bootstrap", `Immich stand-in Microservices is running [${settings.version}] [${settings.environment}]`);
  }
  if (settings.workers.includes("api")) {
    await api.listen(server, settings);
    closers.push(() => server.closeAllConnections());
    log.write("log", "Api:Bootstrap", `Immich stand-in Server is listening on port ${settings.port} [${settings.version}] [${settings.environment}]`);
  }
  await sleep(settings.faults.versionDelay * 1000, undefined, { ref: false });
  await database.noteVersion(context.pool, settings.version);
}

async function main() {
  let settings;
  try {
    settings = env.readSettings(process.env);
  } catch (error) {
    die(error);
  }
  process.env.TZ = settings.timezone;
  log.setLevel(settings.logLevel);

  const closers = [];
  if (settings.faults.ignoreSigterm) {
    process.on("SIGTERM", () => log.write("warn", CONTEXT, "The stand-in was told to ignore SIGTERM"));
  } else {
    stopOnSignal(closers);
  }
  try {
    await start(settings, closers);
  } catch (error) {
    die(error);
  }
}

main();
