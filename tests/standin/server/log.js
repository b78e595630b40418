"use strict";

const LEVELS = ["verbose", "debug", "log", "warn", "error", "fatal"];

// The colors of Nest's ConsoleLogger (@nestjs/common 11.1, services/console-logger.service.js) and of Immich v3.0.3, which
// takes NO_COLOR for the context alone (server/src/repositories/logging.repository.ts).
const COLORS = { verbose: 96, debug: 95, log: 32, warn: 33, error: 31, fatal: 1 };

let threshold = LEVELS.indexOf("log");
const lastSeen = new Map();

function setLevel(level) {
  threshold = LEVELS.indexOf(level);
}

function write(level, context, message) {
  if (LEVELS.indexOf(level) < threshold) {
    return;
  }
  const time = new Date().toLocaleString("en-US");
  const paint = (text, color = COLORS[level]) => `\u001B[${color}m${text}\u001B[${color === 1 ? 0 : 39}m`;
  const stream = level === "error" ? process.stderr : process.stdout;
  const head = `${paint(`[Stand-in] ${process.pid}  - `)}${time} ${paint(level.toUpperCase().padStart(7))}`;
  stream.write(`${head} ${paint(`[${context}]`, 33)} ${paint(message)}\n`);
}

/** A lost connection is reported by dozens of clients at once: one line in five seconds says it. */
function writeSeldom(level, context, message) {
  const now = Date.now();
  if (now - (lastSeen.get(message) ?? 0) < 5000) {
    return;
  }
  lastSeen.set(message, now);
  write(level, context, message);
}

module.exports = { LEVELS, setLevel, write, writeSeldom };
