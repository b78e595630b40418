"use strict";

/* The metrics of a worker, as Immich's own: server/src/repositories/telemetry.repository.ts (commit 2599f58) and
 * services/telemetry.service.ts (1233277), both newer than v2.2.2, which has @opentelemetry/exporter-prometheus 0.207. Its
 * PrometheusSerializer writes the resource first, as target_info, `_` for each dot, and `_total` behind a counter; it listens
 * on every address and answers /metrics alone. Since 0.223 at the latest, each sample also has labels otel_scope_*. */

const http = require("node:http");
const database = require("./database");

const USERS = `SELECT count(*)::int AS number FROM "user" WHERE "deletedAt" IS NULL`;
const JOBS = [
  ["immich_queues_thumbnail_generation_active", "gauge", 0],
  ["immich_jobs_asset_generate_thumbnails_success_total", "counter", 1],
];

/** `immich.users.total` is there once the API has begun to serve; the others are of jobs. */
async function samples(worker, { pool }) {
  if (worker === "microservices") {
    return JOBS;
  }
  const users = pool && (await database.one(pool, USERS).catch(() => undefined));
  return users ? [["immich_users_total", "gauge", users.number]] : [];
}

async function text(worker, context) {
  const lines = [
    "# HELP target_info Target metadata",
    "# TYPE target_info gauge",
    `target_info{service_name="immich",service_version="${context.settings.version.replace(/^v/, "")}"} 1`,
  ];
  for (const [name, kind, value] of await samples(worker, context)) {
    lines.push(`# HELP ${name} description missing`, `# TYPE ${name} ${kind}`, `${name} ${value}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Before the worker connects to anything: configureTelemetry in server/src/app.common.ts (16e20dd), workers/microservices.ts. */
function start(context) {
  const { telemetry, workers } = context.settings;
  if (telemetry.metrics.length === 0) {
    return [];
  }
  return workers.map((worker) => {
    const server = http.createServer(async (request, response) => {
      if (request.url.split("?")[0] !== "/metrics") {
        response.writeHead(404).end();
        return;
      }
      response.setHeader("content-type", "text/plain");
      response.end(await text(worker, context));
    });
    server.listen(telemetry.ports[worker]);
    return () => server.closeAllConnections();
  });
}

module.exports = { start };
