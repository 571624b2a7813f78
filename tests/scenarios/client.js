// The plain client: subscribes to a channel, prints what it hears, and leaves the channel after so many messages.
//
//   node client.js [URL] [CHANNEL] [MESSAGES] [PATH]
const io = require("socket.io-client");

const [url = "http://localhost:3000", channel = "somechannel", messages = "1", path = "/socket.io"] = process.argv.slice(2);
const conn = io.connect(url, { path, reconnectionDelay: 100, reconnectionDelayMax: 100 });
let heard = 0;

conn.on("connect", () => conn.emit("subscribe", channel, () => console.log(`subscribed to ${channel}`)));
conn.on("welcome", ({ instance }) => console.log(`on instance ${instance}`));
conn.on("disconnect", () => console.log("disconnected"));
conn.on("message", (message) => {
  console.log(message);
  heard += 1;
  if (heard === Number(messages)) conn.emit("unsubscribe", channel, () => console.log(`left ${channel}`));
});
