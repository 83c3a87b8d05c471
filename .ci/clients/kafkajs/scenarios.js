// Scenarios of kafkajs: node scenarios.js ADDRESS [short | SCENARIO…]
// Says `ok NAME` or `failed NAME: why`; ends with 1 if one failed.

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const kafkajs = require("kafkajs");
const { CompressionTypes, CompressionCodecs, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
const lz4 = require("lz4js");
const { ZstdCodec } = require("zstd-codec");

const [address, ...chosen] = process.argv.slice(2);
const patience = 30_000;
// What other languages' clients print as they like; here only what fails is said.
const kafka = new Kafka({ brokers: [address], logLevel: logLevel.NOTHING, clientId: "scenarios" });

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
// The library says in its header that blocks depend on each other, which Kafka refuses: of one block it is not so.
const ONE_BLOCK = Buffer.from([0x60, 0x70, 0x73]);
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => {
    const bytes = Buffer.from(lz4.compress(encoder.buffer));
    ONE_BLOCK.copy(bytes, 4);
    return bytes;
  },
  decompress: async (bytes) => Buffer.from(lz4.decompress(bytes)),
});
const zstd = new Promise((ready) => ZstdCodec.run((codec) => ready(new codec.Simple())));
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async (bytes) => Buffer.from((await zstd).decompress(bytes)),
});

const fresh = (name) => `${name}-${randomBytes(4).toString("hex")}`;
const records = (count, tag = "v") =>
  Array.from({ length: count }, (_, at) => ({
    key: `k${at}`,
    value: `${tag}${at}-${"x".repeat((at % 7) * 50)}`,
    headers: { h: "1" },
  }));
const text = (messages) => messages.map(({ key, value }) => `${key} ${value}`);

// Until it is so, or too late.
async function until(what, holds) {
  const ends = Date.now() + patience;
  while (!(await holds())) {
    assert(Date.now() < ends, `not within ${patience} ms: ${what}`);
    await new Promise((go) => setTimeout(go, 50));
  }
}

// Runs with a client that is connected, and lets it go.
async function using(client, work) {
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.disconnect();
  }
}
const admin = (work) => using(kafka.admin(), work);

async function made(partitions = 1, config = {}) {
  const topic = fresh("kafkajs");
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  await admin((client) =>
    client.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }], waitForLeaders: true }),
  );
  return topic;
}

const send = (producer, topic, messages, partition = 0, compression = CompressionTypes.None) =>
  producer.send({ topic, compression, messages: messages.map((message) => ({ ...message, partition })) });
const produced = (topic, messages, partition, compression) =>
  using(kafka.producer(), (producer) => send(producer, topic, messages, partition, compression));

// What a group of its own reads from the beginning, so many records and no more.
async function taken(topic, count, options = {}, groupId = fresh("group"), first = () => {}, last = () => {}) {
  const found = [];
  await using(kafka.consumer({ groupId, maxWaitTimeInMs: 100, ...options }), async (consumer) => {
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => found.push({ partition, ...message }),
    });
    first(consumer);
    await until(`${count} records`, () => found.length >= count);
    await new Promise((go) => setTimeout(go, 300));
    await last(consumer);
  });
  assert.equal(found.length, count);
  return found;
}

const scenarios = {
  async create() {
    const topic = await made(3);
    await admin(async (client) => {
      const { topics } = await client.fetchTopicMetadata({ topics: [topic] });
      assert.equal(topics[0].partitions.length, 3);
      // false: it is there already.
      assert.equal(await client.createTopics({ topics: [{ topic, numPartitions: 3 }] }), false);
    });
  },

  async produce() {
    for (const [codec, compression] of Object.entries(CompressionTypes)) {
      const topic = await made();
      const told = await produced(topic, records(200, codec), 0, compression);
      assert.equal(told[0].baseOffset, "0");
      const found = await taken(topic, 200);
      assert.deepEqual(text(found), text(records(200, codec)));
      assert.equal(found[0].headers.h.toString(), "1");
      assert.equal(found[199].offset, "199");
    }
  },

  async idempotent() {
    const topic = await made();
    await using(kafka.producer({ idempotent: true }), async (producer) => {
      for (let at = 0; at < 20; at++) await send(producer, topic, records(25, `b${at}-`));
    });
    const expected = Array.from({ length: 20 }, (_, at) => text(records(25, `b${at}-`))).flat();
    assert.deepEqual(text(await taken(topic, 500)), expected);
  },

  // Two consumers share the partitions, one leaves, the other has them all: every record once.
  async "group-classic"() {
    const [topic, groupId] = [await made(4), fresh("group")];
    const consumers = [0, 1].map(() => kafka.consumer({ groupId, heartbeatInterval: 500, maxWaitTimeInMs: 100 }));
    const assigned = [0, 0];
    const found = [[], []];
    for (const [which, consumer] of consumers.entries()) {
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
        assigned[which] = (payload.memberAssignment[topic] ?? []).length;
      });
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({ eachMessage: async ({ message }) => found[which].push(message) });
    }
    await until("two partitions each", () => assigned[0] === 2 && assigned[1] === 2);
    for (let partition = 0; partition < 4; partition++) await produced(topic, records(10, `p${partition}-`), partition);
    await until("20 records each", () => found[0].length === 20 && found[1].length === 20);
    const expected = [0, 1, 2, 3].flatMap((partition) => text(records(10, `p${partition}-`)));
    assert.deepEqual(text(found.flat()).sort(), expected.sort());
    await consumers[1].disconnect();
    await until("all partitions", () => assigned[0] === 4);
    found[0].length = 0;
    for (let partition = 0; partition < 4; partition++) await produced(topic, records(1, "after"), partition);
    await until("one record of each", () => found[0].length === 4);
    await consumers[0].disconnect();
    assert.deepEqual(text(found[0]), Array(4).fill(text(records(1, "after"))).flat());
  },

  async commit() {
    const [topic, groupId] = [await made(), fresh("group")];
    await produced(topic, records(10));
    const note = [{ topic, partition: 0, offset: "4", metadata: "a note" }];
    await taken(topic, 10, {}, groupId, () => {}, (consumer) => consumer.commitOffsets(note));
    const found = await taken(topic, 6, {}, groupId);
    assert.deepEqual(found.map(({ offset }) => offset), ["4", "5", "6", "7", "8", "9"]);
    await admin(async (client) => {
      const [offsets] = await client.fetchOffsets({ groupId, topics: [topic] });
      assert.deepEqual(offsets.partitions.map(({ offset, metadata }) => [offset, metadata]), [["4", "a note"]]);
      await client.resetOffsets({ groupId, topic, earliest: true });
    });
    await taken(topic, 10, {}, groupId);
  },

  async "seek-by-time"() {
    const topic = await made();
    const begin = Date.now() - 100_000;
    await produced(topic, records(50).map((each, at) => ({ ...each, timestamp: String(begin + at) })));
    await admin(async (client) => {
      assert.equal((await client.fetchTopicOffsetsByTimestamp(topic, begin + 30))[0].offset, "30");
      const [{ offset, high, low }] = await client.fetchTopicOffsets(topic);
      assert.deepEqual([offset, high, low], ["50", "50", "0"]);
    });
    const found = await taken(topic, 20, {}, fresh("group"), (consumer) =>
      consumer.seek({ topic, partition: 0, offset: "30" }),
    );
    assert.equal(found[0].timestamp, String(begin + 30));
  },

  async transactional() {
    const [source, topic, groupId] = [await made(), await made(), fresh("group")];
    await produced(source, records(5));
    await taken(source, 5, {}, groupId);
    const settings = { transactionalId: fresh("txn"), maxInFlightRequests: 1, idempotent: true };
    await using(kafka.producer(settings), async (producer) => {
      const committed = await producer.transaction();
      await send(committed, topic, records(10, "committed"));
      await committed.sendOffsets({
        consumerGroupId: groupId,
        topics: [{ topic: source, partitions: [{ partition: 0, offset: "5" }] }],
      });
      await committed.commit();
      await admin((client) =>
        until("offsets of the transaction", async () => {
          const [offsets] = await client.fetchOffsets({ groupId, topics: [source] });
          return offsets.partitions[0].offset === "5";
        }),
      );
      const aborted = await producer.transaction();
      await send(aborted, topic, records(10, "aborted"));
      await aborted.abort();
    });
    assert.deepEqual(text(await taken(topic, 10)), text(records(10, "committed")));
  },

  async "read-committed"() {
    const topic = await made();
    const settings = { transactionalId: fresh("txn"), maxInFlightRequests: 1, idempotent: true };
    await using(kafka.producer(settings), async (producer) => {
      for (const [tag, end] of [["a", "abort"], ["b", "commit"], ["c", "abort"], ["d", "commit"]]) {
        const transaction = await producer.transaction();
        await send(transaction, topic, records(10, tag));
        await transaction[end]();
      }
    });
    const expected = [...records(10, "b"), ...records(10, "d")];
    assert.deepEqual(text(await taken(topic, 20, { readUncommitted: false })), text(expected));
    await taken(topic, 40, { readUncommitted: true });
  },

  async "delete-records"() {
    const topic = await made();
    await produced(topic, records(10));
    await admin(async (client) => {
      await client.fetchTopicOffsets(topic); // or it does not know the leaders
      await client.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "4" }] });
      assert.equal((await client.fetchTopicOffsets(topic))[0].low, "4");
    });
    const found = await taken(topic, 6);
    assert.deepEqual(found.map(({ offset }) => offset), ["4", "5", "6", "7", "8", "9"]);
  },

  async describe() {
    const [topic, groupId] = [await made(2, { "retention.ms": "123456" }), fresh("group")];
    await using(kafka.consumer({ groupId }), async (consumer) => {
      await consumer.subscribe({ topic });
      await consumer.run({ eachMessage: async () => {} });
      await admin(async (client) => {
        const cluster = await client.describeCluster();
        assert(cluster.clusterId && cluster.brokers.some(({ nodeId }) => nodeId === cluster.controller));
        const { resources } = await client.describeConfigs({
          resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
          includeSynonyms: true,
        });
        const entry = resources[0].configEntries.find(({ configName }) => configName === "retention.ms");
        assert.equal(entry.configValue, "123456");
        await until("a stable group", async () => {
          const { groups } = await client.describeGroups([groupId]);
          return groups[0].state === "Stable" && groups[0].members.length === 1;
        });
        const { groups } = await client.listGroups();
        assert(groups.some((group) => group.groupId === groupId));
      });
    });
    await admin((client) => client.deleteGroups([groupId]));
  },

  async alter() {
    const topic = await made();
    await admin(async (client) => {
      const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
      await client.alterConfigs({
        resources: [{ ...resource, configEntries: [{ name: "retention.ms", value: "77777" }] }],
      });
      await until("altered", async () => {
        const { resources } = await client.describeConfigs({ resources: [resource] });
        return resources[0].configEntries.some(({ configValue }) => configValue === "77777");
      });
      await client.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
      await until("partitions", async () => {
        const { topics } = await client.fetchTopicMetadata({ topics: [topic] });
        return topics[0].partitions.length === 3;
      });
      await client.deleteTopics({ topics: [topic] });
      await until("gone", async () => !(await client.listTopics()).includes(topic));
    });
  },
};

async function main() {
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (chosen.length && chosen[0] !== "short" && !chosen.includes(name)) continue;
    const began = Date.now();
    let timer;
    const late = new Promise((_, refuse) => {
      timer = setTimeout(() => refuse(new Error("not within two minutes")), 120_000);
    });
    try {
      await Promise.race([scenario(), late]);
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.error(error);
      console.log(`failed ${name}: ${String(error.message).replace(/\s+/g, " ").slice(0, 300)}`);
    }
    clearTimeout(timer);
    console.error(`${name}: ${(Date.now() - began) / 1000} s`);
  }
}

// A client that hangs keeps nobody waiting.
main().finally(() => process.exit());
