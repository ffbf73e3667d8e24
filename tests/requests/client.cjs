// An MQTT.js client: asks the worker on greet/<name>, and prints what comes, a line of JSON for each message.
const mqtt = require("mqtt");

const [url, name] = process.argv.slice(2);
const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0 });
const expected = new Set(["answers/js", "greeted/" + name]);

client.on("error", (error) => {
  // Mosquitto resets the connection when it closes it with something unread.
  if (expected.size === 0) return;
  console.error(error);
  process.exit(1);
});
client.on("message", (topic, body, packet) => {
  const { correlationData, userProperties, contentType } = packet.properties ?? {};
  const told = { topic, body: JSON.parse(body), correlation: correlationData?.toString(), userProperties, contentType };
  console.log(JSON.stringify(told));
  expected.delete(topic);
  // Behind the PUBACK of this message.
  if (expected.size === 0) setImmediate(() => client.end());
});
client.on("connect", () => {
  client.subscribe([...expected], { qos: 1 }, () => {
    const properties = {
      responseTopic: "answers/js",
      correlationData: Buffer.from("question 1"),
      userProperties: { unit: "celsius", tag: ["a", "b"] },
    };
    client.publish("greet/" + name, JSON.stringify({ value: 21.5 }), { qos: 1, properties });
  });
});
setTimeout(() => process.exit(2), 20000).unref();
