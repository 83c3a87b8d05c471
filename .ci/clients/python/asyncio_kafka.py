"""Scenarios of aiokafka."""

import asyncio
import sys
import time
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ProducerFenced

import scenarios
from scenarios import CODECS, PATIENCE, equal, records, topic


@asynccontextmanager
async def running(client):
    await client.start()
    try:
        yield client
    finally:
        await (client.close() if hasattr(client, "close") else client.stop())


def admin(where):
    return running(AIOKafkaAdminClient(bootstrap_servers=where))


async def made(where, partitions=1, **config):
    name = topic("aiokafka")
    settings = {key.replace("_", "."): value for key, value in config.items()}
    async with admin(where) as client:
        answer = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        equal([each[1] for each in answer.topic_errors], [0])
    return name


async def produced(where, name, what, partition=0, timestamp=None, **config):
    async with running(AIOKafkaProducer(bootstrap_servers=where, **config)) as producer:
        return await send(producer, name, what, partition, timestamp)


async def send(producer, name, what, partition=0, timestamp=None):
    futures = [
        await producer.send(
            name,
            value,
            key,
            partition=partition,
            headers=[("h", b"1")],
            timestamp_ms=timestamp and timestamp + at,
        )
        for at, (key, value) in enumerate(what)
    ]
    await asyncio.wait_for(producer.flush(), PATIENCE)
    return [(await future).offset for future in futures]


def consumer(where, *topics, group=None, **config):
    reader = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=where,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=1000,
        **config,
    )
    return running(reader)


async def taken(reader, count):
    """So many records, no fewer; and no more that come at once."""
    found: list[ConsumerRecord] = []
    ends = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} records within {PATIENCE} s"
        for batch in (await reader.getmany(timeout_ms=200)).values():
            found.extend(batch)
    equal(len(found), count)
    equal(await reader.getmany(timeout_ms=300), {}, "more records:")
    return found


def pairs(messages):
    return [(message.key, message.value) for message in messages]


async def until(what, found):
    ends = time.monotonic() + PATIENCE
    while not await found():
        assert time.monotonic() < ends, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.05)


async def create(address):
    name = await made(address, 3)
    async with admin(address) as client:
        answer = await client.create_topics([NewTopic(name, 3, 1)])
        equal([each[1] for each in answer.topic_errors], [36])
        found = await client.describe_topics([name])
        equal(len(found[0]["partitions"]), 3)


async def produce(address):
    for codec in CODECS:
        name = await made(address)
        kind = None if codec == "none" else codec
        offsets = await produced(address, name, records(200, codec), compression_type=kind)
        equal(offsets, list(range(200)))
        async with consumer(address) as reader:
            reader.assign([TopicPartition(name, 0)])
            found = await taken(reader, 200)
            equal(pairs(found), records(200, codec), codec)
            equal(found[0].headers, (("h", b"1"),))


async def idempotent(address):
    name = await made(address)
    await produced(address, name, records(500), enable_idempotence=True, max_batch_size=500)
    async with consumer(address) as reader:
        reader.assign([TopicPartition(name, 0)])
        equal(pairs(await taken(reader, 500)), records(500))


async def assign(address):
    name = await made(address, 2)
    await produced(address, name, records(20), 1)
    partition = TopicPartition(name, 1)
    async with consumer(address) as reader:
        reader.assign([partition])
        reader.seek(partition, 15)
        equal([message.offset for message in await taken(reader, 5)], list(range(15, 20)))
        equal(await reader.beginning_offsets([partition]), {partition: 0})
        equal(await reader.end_offsets([partition]), {partition: 20})


async def group_classic(address):
    """Two consumers share the partitions, one leaves, the other has them all: every record once."""
    name, group = await made(address, 4), topic("group")
    async with consumer(address, name, group=group) as first:
        async with consumer(address, name, group=group) as second:

            async def shared():
                return [len(each.assignment()) for each in (first, second)] == [2, 2]

            await until("two partitions each", shared)
            for partition in range(4):
                await produced(address, name, records(10, f"p{partition}-"), partition)
            found = pairs(await taken(first, 20)) + pairs(await taken(second, 20))
            equal(sorted(found), sorted(pair for p in range(4) for pair in records(10, f"p{p}-")))
            await first.commit()
            await second.commit()

        async def alone():
            return len(first.assignment()) == 4

        await until("all partitions", alone)
        for partition in range(4):
            await produced(address, name, records(1, "after"), partition)
        equal(pairs(await taken(first, 4)), records(1, "after") * 4)


async def commit(address):
    name, group = await made(address), topic("group")
    partition = TopicPartition(name, 0)
    await produced(address, name, records(10))
    async with consumer(address, name, group=group) as reader:
        await taken(reader, 10)
        await reader.commit({partition: (4, "a note")})
        equal(await reader.committed(partition), 4)
    async with consumer(address, name, group=group) as reader:
        equal([message.offset for message in await taken(reader, 6)], list(range(4, 10)))
    async with admin(address) as client:
        offsets = await client.list_consumer_group_offsets(group)
        equal(tuple(offsets[partition]), (4, "a note"))


async def seek_by_time(address):
    name = await made(address)
    begin = int(time.time() * 1000) - 100_000
    await produced(address, name, records(50), timestamp=begin)
    partition = TopicPartition(name, 0)
    async with consumer(address) as reader:
        reader.assign([partition])
        found = await reader.offsets_for_times({partition: begin + 30})
        equal(tuple(found[partition])[:2], (30, begin + 30))
        equal(await reader.offsets_for_times({partition: begin + 50}), {partition: None})
        reader.seek(partition, 30)
        equal((await taken(reader, 20))[0].timestamp, begin + 30)


async def transactional(address):
    source, name, group = await made(address), await made(address), topic("group")
    await produced(address, source, records(5))
    settings = {"bootstrap_servers": address, "transactional_id": topic("txn"), "compression_type": "lz4"}
    async with consumer(address, source, group=group) as reader:
        await taken(reader, 5)
        producer = AIOKafkaProducer(**settings)
        await producer.start()
        async with producer.transaction():
            await send(producer, name, records(10, "committed"))
            partition = TopicPartition(source, 0)
            await producer.send_offsets_to_transaction({partition: 5}, group)

        # The answer to the end of a transaction may be there before its offsets.
        async def moved():
            return await reader.committed(partition) == 5

        await until("offsets of the transaction", moved)
        await producer.begin_transaction()
        await send(producer, name, records(10, "aborted"))
        await producer.abort_transaction()
        # Another of the same name fences the first.
        async with running(AIOKafkaProducer(**settings)):
            try:
                async with producer.transaction():
                    await producer.send_and_wait(name, b"fenced", partition=0)
                raise AssertionError("a fenced producer committed")
            except ProducerFenced:
                pass
        await producer.stop()
    async with consumer(address, isolation_level="read_committed") as reader:
        reader.assign([TopicPartition(name, 0)])
        equal(pairs(await taken(reader, 10)), records(10, "committed"))


async def read_committed(address):
    name = await made(address)
    async with running(AIOKafkaProducer(bootstrap_servers=address, transactional_id=topic("txn"))) as producer:
        for tag, ends in [("a", "abort"), ("b", "commit"), ("c", "abort"), ("d", "commit"), ("e", None)]:
            await producer.begin_transaction()
            await send(producer, name, records(10, tag))
            if ends == "abort":
                await producer.abort_transaction()
            elif ends == "commit":
                await producer.commit_transaction()
        for level, expected in [
            ("read_committed", records(10, "b") + records(10, "d")),
            ("read_uncommitted", [pair for tag in "abcde" for pair in records(10, tag)]),
        ]:
            async with consumer(address, isolation_level=level) as reader:
                reader.assign([TopicPartition(name, 0)])
                equal(pairs(await taken(reader, len(expected))), expected, level)
        await producer.abort_transaction()


async def delete_records(address):
    name = await made(address)
    await produced(address, name, records(10))
    partition = TopicPartition(name, 0)
    async with admin(address) as client:
        found = await client.delete_records({partition: RecordsToDelete(before_offset=4)})
        equal(found, {partition: 4})
    async with consumer(address) as reader:
        equal(await reader.beginning_offsets([partition]), {partition: 4})
        reader.assign([partition])
        equal([message.offset for message in await taken(reader, 6)], list(range(4, 10)))


async def describe(address):
    name, group = await made(address, 2, retention_ms="123456"), topic("group")
    async with consumer(address, name, group=group) as reader, admin(address) as client:

        async def assigned():
            await reader.getmany(timeout_ms=100)
            return len(reader.assignment()) == 2

        await until("assignment", assigned)
        cluster = await client.describe_cluster()
        assert cluster["cluster_id"] and cluster["brokers"], cluster
        config = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        assert "123456" in str(config), config
        groups = await client.describe_consumer_groups([group])
        assert "Stable" in str(groups), groups
        assert group in str(await client.list_consumer_groups())


async def alter(address):
    name = await made(address)
    async with admin(address) as client:
        resource = ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "77777"})
        await client.alter_configs([resource])
        plain = ConfigResource(ConfigResourceType.TOPIC, name)

        async def altered():
            return "77777" in str(await client.describe_configs([plain]))

        await until("altered", altered)
        await client.create_partitions({name: NewPartitions(3)})

        async def extended():
            return len((await client.describe_topics([name]))[0]["partitions"]) == 3

        await until("partitions", extended)
        await client.delete_topics([name])

        async def gone():
            return name not in await client.list_topics()

        await until("gone", gone)


def settled(scenario):
    return lambda address: asyncio.run(asyncio.wait_for(scenario(address), 3 * PATIENCE))


scenarios.run((name, settled(each)) for name, each in scenarios.named(sys.modules[__name__]))
