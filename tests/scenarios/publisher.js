// Says two messages on a channel, by any server, and ends.
//
//   node publisher.js [URL] [CHANNEL] [PATH]
const io = require("socket.io-client");

const [url = "http://localhost:3000", channel = "my channel", path = "/socket.io"] = process.argv.slice(2);
const conn = io.connect(url, { path, transports: ["websocket"] });

conn.emit("publish", channel, "first message");
conn.emit("publish", channel, "second message", () => conn.disconnect());
