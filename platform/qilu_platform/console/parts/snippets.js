// Ready pieces of programs that publish a reading, for the unit and the broker at hand.

/** A reading with some of the class's signals, each at its nominal value; of the generic class, whose units send what they have, an example. */
export function sample(class_) {
  if (class_.learns && !class_.signals.length) return { temperature: 21.5, running: true };
  const shown = class_.signals.filter((each) => each.name !== "energy_kWh" && each.name !== "co2_kg").slice(0, 3);
  return Object.fromEntries(shown.map((each) => [each.name, each.type === "bool" ? Boolean(each.nominal) : each.nominal]));
}

/** Seconds between two readings. */
const every = (class_) => Math.min(10, ...class_.signals.map((each) => each.interval_s));

const metrics = (class_) => class_.learns && !class_.signals.length ? ["temperature (Double)", "running (Boolean)"]
  : class_.signals.map((each) => `${each.name} (${each.type === "bool" ? "Boolean" : each.type === "int" ? "Int64" : "Double"})`);

/**
 * {name: [title key, text, file name?]}; `at` is the answer of GET /v1/connection, `login` the device's own password
 * {username, password, listener}: without one the texts use the log-in of the machine, or the enterprise's certificate.
 */
export function snippets(unit, class_, at, login = null) {
  const topic = `qilu/v1/${unit.county}/${unit.enterprise}/${unit.id}/telemetry`;
  const values = sample(class_);
  const inside = JSON.stringify(values).slice(1, -1);
  const plain = at.plain ?? { host: "127.0.0.1", port: 1883 };
  const tls = at.tls ?? { host: plain.host, port: 8883 };
  const found = {
    mosquitto: ["snippet.mosquitto", `# user and password of this machine, from the folder in which the stack was started
. var/env
mosquitto_pub -V mqttv5 -h ${plain.host} -p ${plain.port} -u "$QILU_MQTT_USER" -P "$QILU_MQTT_PASSWORD" -q 1 \\
  -t ${topic} \\
  -m '${JSON.stringify(values)}'
`],
    python: ["snippet.python", `# pip install paho-mqtt
import json, os, time
import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.username_pw_set(os.environ["QILU_MQTT_USER"], os.environ["QILU_MQTT_PASSWORD"])
client.connect("${plain.host}", ${plain.port})
client.loop_start()
while True:
    reading = {"ts": int(time.time() * 1000), **json.loads('${JSON.stringify(values)}')}
    client.publish("${topic}", json.dumps(reading), qos=1).wait_for_publish()
    time.sleep(${every(class_)})
`],
    arduino: ["snippet.arduino", `// Libraries: PubSubClient, WiFiClientSecure (ESP32). Paste the three files of the certificate.
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <PubSubClient.h>

const char *CA = "...ca.crt...", *CERT = "...node.crt...", *KEY = "...node.key...";
WiFiClientSecure net;
PubSubClient mqtt(net);

void setup() {
  WiFi.begin("network", "password");
  while (WiFi.status() != WL_CONNECTED) delay(200);
  net.setCACert(CA);
  net.setCertificate(CERT);
  net.setPrivateKey(KEY);
  mqtt.setServer("${tls.host}", ${tls.port});
}

void loop() {
  if (!mqtt.connected()) mqtt.connect("${unit.enterprise}");
  mqtt.loop();
  // Without "ts" the reading gets the time of its receipt.
  mqtt.publish("${topic}", R"({${inside}})");
  delay(10000);
}
`],
    nodered: ["snippet.nodered", nodeRed(topic, values, plain), "qilu-flow.json"],
    sparkplug: ["snippet.sparkplug", `Broker         mqtts://${tls.host}:${tls.port}  (certificate of the enterprise)
Namespace      spBv1.0
Group id       ${unit.county}
Edge node id   ${unit.enterprise}
Device id      ${unit.id}
Client id      ${unit.enterprise}
Primary host   qilu
Metrics        ${metrics(class_).join("\n               ")}
`],
  };
  return login ? { ...found, ...withPassword(topic, values, inside, at.ca, login, class_) } : found;
}

function withPassword(topic, values, inside, ca, { username, password, listener }, class_) {
  const { host, port } = listener;
  return {
    mosquitto: ["snippet.mosquitto", `cat > ca.crt <<'END'
${ca.trim()}
END
mosquitto_pub -V mqttv5 --cafile ca.crt -h ${host} -p ${port} -u ${username} -P '${password}' -q 1 \\
  -t ${topic} \\
  -m '${JSON.stringify(values)}'
`],
    python: ["snippet.python", `# pip install paho-mqtt
import json, ssl, time
import paho.mqtt.client as mqtt

CA = """${ca.trim()}
"""
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.username_pw_set("${username}", "${password}")
client.tls_set_context(ssl.create_default_context(cadata=CA))
client.connect("${host}", ${port})
client.loop_start()
while not client.is_connected():  # a new password is known to the broker after a second or two
    time.sleep(0.1)
while True:
    reading = {"ts": int(time.time() * 1000), **json.loads('${JSON.stringify(values)}')}
    client.publish("${topic}", json.dumps(reading), qos=1).wait_for_publish()
    time.sleep(${every(class_)})
`],
    arduino: ["snippet.arduino", `// Libraries: PubSubClient, WiFiClientSecure (ESP32).
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <PubSubClient.h>

const char *CA = R"(${ca.trim()}
)";
WiFiClientSecure net;
PubSubClient mqtt(net);

void setup() {
  WiFi.begin("network", "password");
  while (WiFi.status() != WL_CONNECTED) delay(200);
  configTime(0, 0, "pool.ntp.org");  // TLS needs the date
  net.setCACert(CA);
  mqtt.setServer("${host}", ${port});
}

void loop() {
  if (!mqtt.connected()) mqtt.connect("${username}", "${username}", "${password}");
  mqtt.loop();
  // Without "ts" the reading gets the time of its receipt.
  mqtt.publish("${topic}", R"({${inside}})");
  delay(10000);
}
`],
    nodered: ["snippet.nodered", nodeRed(topic, values, listener, { username, password, ca }), "qilu-flow.json"],
  };
}

/** With `login` the flow signs in over TLS; Node-RED keeps its credentials when the flow is imported. */
function nodeRed(topic, values, at, login = null) {
  const tls = login && { id: "qilu-tls", type: "tls-config", name: "Clouds in Qilu", verifyservercert: true, credentials: { cadata: login.ca } };
  return JSON.stringify([
    ...(tls ? [tls] : []),
    { id: "qilu-every", type: "inject", z: "", name: "every 10 s", repeat: "10", once: true, topic: "", payloadType: "date", wires: [["qilu-reading"]] },
    { id: "qilu-reading", type: "function", z: "", name: "reading", func: `msg.payload = {ts: Date.now(), ...${JSON.stringify(values)}};\nreturn msg;`, outputs: 1, wires: [["qilu-out"]] },
    { id: "qilu-out", type: "mqtt out", z: "", name: "Clouds in Qilu", topic, qos: "1", retain: "false", broker: "qilu-broker", wires: [] },
    { id: "qilu-broker", type: "mqtt-broker", name: "Clouds in Qilu", broker: at.host, port: String(at.port), protocolVersion: "5",
      ...(login ? { usetls: true, tls: "qilu-tls", clientid: login.username, credentials: { user: login.username, password: login.password } } : {}) },
  ], null, 2);
}
