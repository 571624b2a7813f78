// What the service does with channels, by the Socket.IO server of its authors: a room for each channel, and one
// connection to Redis that hears what anybody publishes. Started by the benchmark `live` with a port and a Redis.

const { createServer } = require("node:http");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");

async function main([port, url]) {
  const [forAdapter, forAdapterToo, messages] = [createClient({ url }), createClient({ url }), createClient({ url })];
  await Promise.all([forAdapter, forAdapterToo, messages].map((client) => client.connect()));
  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(forAdapter, forAdapterToo) });
  const heard = new Set();
  io.on("connection", (socket) => {
    socket.on("subscribe", async (channel, done) => {
      socket.join(channel);
      if (!heard.has(channel)) {
        heard.add(channel);
        // Every instance hears it from Redis, so each tells its own clients alone.
        await messages.subscribe(channel, (message) => io.local.to(channel).emit("message", message, channel));
      }
      done("ok");
    });
  });
  http.listen(Number(port), "127.0.0.1", () => console.log("ready"));
}

main(process.argv.slice(2));
