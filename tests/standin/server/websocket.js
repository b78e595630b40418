"use strict";

/* Immich's API and its background workers tell each other events through socket.io over Valkey's pub/sub. */

const { createAdapter } = require("@socket.io/redis-adapter");
const { Server } = require("socket.io");
const valkey = require("./valkey");

const PATH = "/api/socket.io";

/** A node of the event bus; with an HTTP server, browsers reach it too. A denied PSUBSCRIBE ends the process. */
function open(settings, httpServer) {
  const publisher = valkey.createClient(settings);
  const subscriber = valkey.createClient(settings);
  const io = new Server({ path: PATH, transports: ["websocket"], adapter: createAdapter(publisher, subscriber) });
  if (httpServer !== undefined) {
    io.attach(httpServer);
  }
  io.on("AppEvent", (_event, reply) => reply?.("received"));
  return {
    io,
    close: () => {
      publisher.disconnect();
      subscriber.disconnect();
    },
  };
}

/** Broadcasts, asks the other nodes for their clients, and sends the nodes an event that they answer. */
async function exercise(io) {
  io.emit("on_standin", { now: Date.now() });
  io.to("room").emit("on_standin", { now: Date.now() });
  const sockets = await io.fetchSockets();
  const answers = await io.serverSideEmitWithAck("AppEvent", { now: Date.now() });
  return { sockets: sockets.length, answers: answers.length };
}

module.exports = { exercise, open };
