"use strict";

/*
 * Somebody who has taken over the server's container: its libraries, its environment, its secrets.
 *
 * Standard input of `node -`. The argument is JSON, {what: [attempts]}; what is printed is the list of their outcomes
 * under the same names, {"answer": …} or {"error": text} each.
 *
 *   postgres  {"sql": text, "options": what differs in the connection}
 *   valkey    [command, argument, …], or a list of such, for one connection
 *   connect   [address, port]
 *   read      path of a file
 *   write     path of a file
 */

const fs = require("node:fs");
const net = require("node:net");
const Redis = require("ioredis");
const { Client } = require("pg");

const secret = (file) => fs.readFileSync(file, "utf8");
const env = process.env;

async function postgres({ sql, options }) {
  const client = new Client({
    host: env.DB_HOSTNAME,
    port: Number(env.DB_PORT),
    user: env.DB_USERNAME,
    database: env.DB_DATABASE_NAME,
    password: secret(env.DB_PASSWORD_FILE),
    statement_timeout: 60000,
    ...options,
  });
  client.on("error", () => {});
  await client.connect();
  try {
    const done = await client.query(sql);
    return [done].flat().at(-1).rows;
  } finally {
    await client.end();
  }
}

async function valkey(commands) {
  const client = new Redis({
    host: env.REDIS_HOSTNAME,
    port: Number(env.REDIS_PORT),
    username: env.REDIS_USERNAME,
    password: secret(env.REDIS_PASSWORD_FILE),
    retryStrategy: null,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
  });
  client.on("error", () => {});
  try {
    let answer;
    for (const command of Array.isArray(commands[0]) ? commands : [commands]) {
      answer = await Promise.race([client.call(...command), later(10000, "no answer")]);
    }
    return answer;
  } finally {
    client.disconnect();
  }
}

function connect([host, port]) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, timeout: 5000 });
    socket.on("connect", () => resolve("connected") || socket.destroy());
    socket.on("timeout", () => reject(new Error("timeout")) || socket.destroy());
    socket.on("error", reject);
  });
}

function later(milliseconds, text) {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(text)), milliseconds).unref());
}

const read = async (path) => fs.readFileSync(path, "latin1").slice(0, 1000);
const write = async (path) => fs.writeFileSync(path, "x");
const kinds = { postgres, valkey, connect, read, write };

async function outcome(kind, attempt) {
  try {
    return { answer: (await kinds[kind](attempt)) ?? null };
  } catch (error) {
    return { error: String(error.message || error.code || error) };
  }
}

async function main() {
  const outcomes = {};
  for (const [kind, attempts] of Object.entries(JSON.parse(process.argv[2]))) {
    outcomes[kind] = [];
    const all = attempts.map((attempt) => () => outcome(kind, attempt));
    // Nothing waits for another's timeout; what speaks to a server does it in order.
    if (kind === "connect") outcomes[kind] = await Promise.all(all.map((each) => each()));
    else for (const each of all) outcomes[kind].push(await each());
  }
  console.log(JSON.stringify(outcomes));
}

main().then(() => process.exit(0));
