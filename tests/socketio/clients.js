// The official clients of Socket.IO, told what to do by tests/it/sockets.rs: commands come in and events go out as
// JSON, one in each line. Bytes are {"$bytes": BASE64} on both ways. Usage: node clients.js FOLDER_WITH_PACKAGES
"use strict";
const { createRequire } = require("module");
const { join } = require("path");
const packages = createRequire(join(process.argv[2], "package.json"));

const PACKAGES = { 4: "socket.io-client", 2: "socket.io-client-2", 1: "socket.io-client-1" };
const EVENTS = ["welcome", "message", "live", "closed", "silent", "back", "recovered", "gap", "refused"];
const sockets = new Map();

const told = (value) =>
  value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? { $bytes: Buffer.from(value).toString("base64") } : value;
const meant = (value) => (value?.$bytes === undefined ? value : Buffer.from(value.$bytes, "base64"));
const say = (id, event, args) => process.stdout.write(`${JSON.stringify({ id, event, args: args.map(told) })}\n`);

function connect(id, { url, version, options }) {
  const io = packages(PACKAGES[version]);
  const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 50, ...options });
  for (const event of EVENTS) socket.on(event, (...args) => say(id, event, args));
  socket.on("disconnect", (reason) => say(id, "disconnect", [reason]));
  for (const event of ["connect_error", "error"]) socket.on(event, (error) => say(id, event, [String(error)]));
  socket.on("connect", () => {
    const { engine } = socket.io;
    say(id, "connect", [engine.transport.name]);
    engine.on("upgrade", (transport) => say(id, "upgrade", [transport.name]));
  });
  sockets.set(id, socket);
}

function carryOut({ id, connect: connection, emit, ack, disconnect }) {
  if (connection) connect(id, connection);
  if (emit) sockets.get(id).emit(...emit.map(meant), ...(ack ? [(...args) => say(id, "ack", args)] : []));
  if (disconnect) sockets.get(id).disconnect();
}

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => carryOut(JSON.parse(line)))
  .on("close", () => process.exit(0));
