"use strict";

/*
 * This file is managed by Salt (immich-formula). Node loads it before Immich (NODE_OPTIONS).
 *
 * Immich connects to Valkey by TLS only as its variable REDIS_URL says, which holds the password too (getEnv in
 * server/src/repositories/config.repository.ts of v3.0.3). So that this stands neither in the compose file nor in `podman
 * inspect`, it is put together here, of the variables that Immich has without TLS. The authorities are those of
 * NODE_EXTRA_CA_CERTS besides Node's own.
 */

const fs = require("node:fs");

const { env } = process;

// Immich's own start script has read the file, other programs have not.
const password = env.REDIS_PASSWORD || fs.readFileSync(env.REDIS_PASSWORD_FILE, "utf8").replace(/\n+$/, "");
const options = {
  host: env.REDIS_HOSTNAME,
  port: Number(env.REDIS_PORT),
  db: Number(env.REDIS_DBINDEX),
  username: env.REDIS_USERNAME,
  password,
  tls: {},
};
env.REDIS_URL = `ioredis://${Buffer.from(JSON.stringify(options)).toString("base64")}`;
