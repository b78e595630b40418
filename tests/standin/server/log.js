"use strict";

const LEVELS = ["verbose", "debug", "log", "warn", "error", "fatal"];

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
  process.stdout.write(`[Stand-in] ${process.pid}  - ${time} ${level.toUpperCase().padStart(7)} [${context}] ${message}\n`);
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
