"use strict";

/* What Immich does to Valkey: one BullMQ queue and worker for each kind of job, and a watcher of its workers. */

const { setTimeout: sleep } = require("node:timers/promises");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");
const log = require("./log");

const CONTEXT = "Microservices:JobRepository";
const PREFIX = "immich_bull";
const QUEUES = [
  "backgroundTask",
  "backupDatabase",
  "duplicateDetection",
  "editor",
  "faceDetection",
  "facialRecognition",
  "integrityCheck",
  "library",
  "metadataExtraction",
  "migration",
  "notifications",
  "ocr",
  "search",
  "sidecar",
  "smartSearch",
  "storageTemplateMigration",
  "thumbnailGeneration",
  "videoConversion",
  "workflow",
];
const JOBS_PER_QUEUE = 5;
const EXERCISE_SECONDS = 30;
const WATCH_SECONDS = 60;
const DENIAL = /NOPERM|no permissions|ACL failure/;

const denials = new Set();

/**
 * Remembers every denied command of every client of this process. The rejection itself is left as it is: a promise that
 * got a handler here would no longer end the process when nobody else handles it, which is how a denied PSUBSCRIBE shows.
 */
function watchDenials() {
  const send = Redis.prototype.sendCommand;
  const seen = new WeakSet();
  Redis.prototype.sendCommand = function (command, stream) {
    if (!seen.has(command)) {
      seen.add(command);
      const reject = command.reject;
      command.reject = (error) => {
        noteDenial(command.name, error);
        forgetPassword(error);
        reject(error);
      };
    }
    return send.call(this, command, stream);
  };
}

/** ioredis hangs the arguments on the error, and Node prints them when it ends the process for it. */
function forgetPassword(error) {
  if (error.command?.name === "auth") {
    error.command.args = [];
  }
}

function noteDenial(command, error) {
  if (!DENIAL.test(error.message)) {
    return;
  }
  denials.add(`${command}: ${error.message}`);
  log.writeSeldom("error", CONTEXT, `Valkey denied ${command}: ${error.message}`);
}

function denied() {
  return [...denials].sort();
}

function reportErrors(emitter) {
  emitter.on("error", (error) => log.writeSeldom("error", CONTEXT, `Valkey: ${error.message || error.code}`));
  return emitter;
}

function createClient(settings) {
  return reportErrors(new Redis(settings));
}

function options(settings) {
  return { prefix: PREFIX, connection: { ...settings } };
}

function openQueues(settings) {
  const defaultJobOptions = { attempts: 1, removeOnComplete: true, removeOnFail: false };
  const queues = QUEUES.map((name) => reportErrors(new Queue(name, { ...options(settings), defaultJobOptions })));
  return { queues, close: () => Promise.all(queues.map((queue) => queue.close())) };
}

/** A job of an exercise fails as often as it says, then counts as done; jobs without a run only have to run. */
function processor(progress) {
  return async (job) => {
    if (job.data.run === undefined) {
      return;
    }
    if (job.attemptsMade < (job.data.failures ?? 0)) {
      throw new Error("this job fails on purpose");
    }
    const key = `${job.data.run} ${job.queueName}`;
    progress.set(key, (progress.get(key) ?? 0) + 1);
  };
}

/** CLIENT LIST tells which workers live, as the names of their connections. */
async function watchWorkers(queues) {
  try {
    const workers = await Promise.all(queues.map((queue) => queue.getWorkers()));
    const idle = queues.filter((_, index) => workers[index].length === 0).map((queue) => queue.name);
    if (idle.length > 0) {
      log.write("warn", CONTEXT, `No worker is connected for: ${idle.join(", ")}`);
    }
  } catch (error) {
    log.writeSeldom("error", CONTEXT, `Unable to list workers: ${error.message}`);
  }
}

function startWorkers(settings, queues, progress) {
  const workers = QUEUES.map((name) =>
    reportErrors(new Worker(name, processor(progress), { ...options(settings), concurrency: 1 })),
  );
  const watch = setInterval(() => watchWorkers(queues), WATCH_SECONDS * 1000);
  Promise.all(workers.map((worker) => worker.waitUntilReady())).then(
    () => watchWorkers(queues),
    (error) => log.writeSeldom("error", CONTEXT, `Workers are not ready: ${error.message}`),
  );
  return {
    close: () => {
      clearInterval(watch);
      return Promise.all(workers.map((worker) => worker.close(true)));
    },
  };
}

async function addAndRun(queue, run) {
  await queue.pause();
  await queue.isPaused();
  await queue.add("plain", { run });
  await queue.addBulk([
    { name: "urgent", data: { run }, opts: { priority: 1 } },
    { name: "later", data: { run }, opts: { delay: 100 } },
    { name: "named", data: { run }, opts: { jobId: `standin-${run}` } },
  ]);
  await queue.add("retried", { run, failures: 1 }, { attempts: 2 });
  await queue.add("failed", { run, failures: 9 });
  await queue.getJobs(["waiting", "paused", "delayed", "prioritized"]);
  await queue.resume();
}

async function inspectAndClean(queue, run) {
  await queue.getJobCounts();
  await queue.getWorkers();
  await queue.clean(0, 1000, "failed");
  await queue.pause();
  const job = await queue.add("removed", { run });
  await queue.getJob(job.id);
  await job.remove();
  await queue.add("drained", { run });
  await queue.drain(true);
  await queue.upsertJobScheduler(`standin-${run}`, { every: 3600 * 1000 }, { name: "scheduled", data: {} });
  await queue.removeJobScheduler(`standin-${run}`);
  await queue.resume();
}

async function exerciseQueue(queue, run, progress) {
  const key = `${run} ${queue.name}`;
  await addAndRun(queue, run);
  while ((progress.get(key) ?? 0) < JOBS_PER_QUEUE) {
    await sleep(20);
  }
  await inspectAndClean(queue, run);
}

async function withinTime(promise) {
  const timer = new AbortController();
  const limit = sleep(EXERCISE_SECONDS * 1000, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`not finished within ${EXERCISE_SECONDS} s`);
  });
  limit.catch(() => {});
  try {
    return await Promise.race([promise, limit]);
  } finally {
    timer.abort();
  }
}

/** Puts jobs through all queues; says how many of each were completed, what went wrong, and what was denied. */
async function exercise(queues, run, progress) {
  const errors = [];
  const note = (name) => (error) => errors.push(`${name}: ${error.message}`);
  await Promise.all(queues.map((queue) => withinTime(exerciseQueue(queue, run, progress)).catch(note(queue.name))));
  const completed = Object.fromEntries(queues.map(({ name }) => [name, progress.get(`${run} ${name}`) ?? 0]));
  queues.forEach(({ name }) => progress.delete(`${run} ${name}`));
  return { expected_per_queue: JOBS_PER_QUEUE, completed, errors };
}

module.exports = { createClient, denied, exercise, openQueues, startWorkers, watchDenials, withinTime };
