"""Scenarios of kafka-python."""

import functools
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

import scenarios
from scenarios import CODECS, PATIENCE, equal, records, topic, until


@functools.cache
def admin(address):
    return KafkaAdminClient(bootstrap_servers=address)


def made(address, partitions=1, **config):
    name = topic("kafka-python")
    settings = {key.replace("_", "."): value for key, value in config.items()}
    admin(address).create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
    return name


def produced(address, name, what, partition=0, timestamp=None, **config):
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=5, **config)
    offsets = send(producer, name, what, partition, timestamp)
    producer.close()
    return offsets


def send(producer, name, what, partition=0, timestamp=None):
    futures = [
        producer.send(
            name,
            value,
            key,
            partition=partition,
            headers=[("h", b"1")],
            timestamp_ms=timestamp and timestamp + at,
        )
        for at, (key, value) in enumerate(what)
    ]
    producer.flush(PATIENCE)
    return [future.get(PATIENCE).offset for future in futures]


def consumer(address, group=None, **config):
    return KafkaConsumer(
        bootstrap_servers=address,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **config,
    )


def taken(reader, count):
    """So many records, no fewer; and no more that come at once."""
    found = []
    ends = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} records within {PATIENCE} s"
        for batch in reader.poll(200).values():
            found.extend(batch)
    equal(len(found), count)
    equal(reader.poll(300), {}, "more records:")
    return found


def pairs(messages):
    return [(message.key, message.value) for message in messages]


def create(address):
    name = made(address, 3)
    reader = consumer(address)
    equal(reader.partitions_for_topic(name), {0, 1, 2})
    reader.close()
    try:
        admin(address).create_topics([NewTopic(name, 3, 1)])
        raise AssertionError("a topic was created twice")
    except TopicAlreadyExistsError:
        pass


def produce(address):
    for codec in CODECS:
        name = made(address)
        kind = None if codec == "none" else codec
        offsets = produced(address, name, records(200, codec), compression_type=kind, enable_idempotence=False)
        equal(offsets, list(range(200)))
        reader = consumer(address)
        reader.assign([TopicPartition(name, 0)])
        found = taken(reader, 200)
        equal(pairs(found), records(200, codec), codec)
        equal(found[0].headers, [("h", b"1")])
        reader.close()


def idempotent(address):
    name = made(address)
    offsets = produced(address, name, records(500), enable_idempotence=True, batch_size=500)
    equal(offsets, list(range(500)))
    reader = consumer(address)
    reader.assign([TopicPartition(name, 0)])
    equal(pairs(taken(reader, 500)), records(500))
    reader.close()


def assign(address):
    name = made(address, 2)
    produced(address, name, records(20), 1)
    reader = consumer(address)
    partition = TopicPartition(name, 1)
    reader.assign([partition])
    reader.seek(partition, 15)
    equal([message.offset for message in taken(reader, 5)], list(range(15, 20)))
    equal(reader.beginning_offsets([partition]), {partition: 0})
    equal(reader.end_offsets([partition]), {partition: 20})
    reader.close()


def two_of_a_group(address, **config):
    """Two consumers share the partitions, one leaves, the other has them all: every record once."""
    name, group = made(address, 4), topic("group")
    readers = [consumer(address, group, **config) for _ in range(2)]
    for reader in readers:
        reader.subscribe([name])
    found, errors = [[], []], []

    def read(which, ends):
        try:
            while not ends.is_set():
                for batch in readers[which].poll(100).values():
                    found[which].extend(pairs(batch))
                    readers[which].commit()
        except Exception as error:  # said by whoever waits
            errors.append(error)

    stops = [threading.Event(), threading.Event()]
    threads = [threading.Thread(target=read, args=each, daemon=True) for each in enumerate(stops)]
    for thread in threads:
        thread.start()

    def assigned(counts):
        assert not errors, errors
        return [len(reader.assignment()) for reader in readers][: len(counts)] == counts

    until("two partitions each", lambda: assigned([2, 2]))
    for partition in range(4):
        produced(address, name, records(10, f"p{partition}-"), partition)
    until("20 records each", lambda: not errors and [len(each) for each in found] == [20, 20])
    equal(sorted(found[0] + found[1]), sorted(pair for p in range(4) for pair in records(10, f"p{p}-")))
    stops[1].set()
    threads[1].join(PATIENCE)
    readers[1].close()
    until("all partitions", lambda: assigned([4]))
    found[0].clear()
    for partition in range(4):
        produced(address, name, records(1, "after"), partition)
    until("records of all partitions", lambda: found[0] == records(1, "after") * 4)
    stops[0].set()
    threads[0].join(PATIENCE)
    readers[0].close()


def group_classic(address):
    two_of_a_group(address)


def commit(address):
    name, group = made(address), topic("group")
    partition = TopicPartition(name, 0)
    produced(address, name, records(10))
    reader = consumer(address, group)
    reader.subscribe([name])
    taken(reader, 10)
    reader.commit({partition: OffsetAndMetadata(4, "a note", -1)})
    equal(reader.committed(partition, metadata=True)[:2], (4, "a note"))
    reader.close()
    again = consumer(address, group)
    again.subscribe([name])
    equal([message.offset for message in taken(again, 6)], list(range(4, 10)))
    again.close()
    offsets = admin(address).list_group_offsets([group])
    equal(offsets[group][partition].offset, 4)


def seek_by_time(address):
    name = made(address)
    begin = int(time.time() * 1000) - 100_000
    produced(address, name, records(50), timestamp=begin)
    partition = TopicPartition(name, 0)
    reader = consumer(address)
    found = reader.offsets_for_times({partition: begin + 30})
    equal(found[partition][:2], (30, begin + 30))
    equal(reader.offsets_for_times({partition: begin + 50}), {partition: None})
    reader.assign([partition])
    reader.seek(partition, 30)
    equal(taken(reader, 20)[0].timestamp, begin + 30)
    reader.close()


def transactional(address):
    source, name, group = made(address), made(address), topic("group")
    produced(address, source, records(5))
    reader = consumer(address, group)
    reader.subscribe([source])
    taken(reader, 5)
    producer = KafkaProducer(bootstrap_servers=address, transactional_id=topic("txn"), compression_type="lz4")
    producer.init_transactions()
    producer.begin_transaction()
    send(producer, name, records(10, "committed"))
    partition = TopicPartition(source, 0)
    offsets = {partition: OffsetAndMetadata(reader.position(partition), "", -1)}
    producer.send_offsets_to_transaction(offsets, reader.group_metadata())
    producer.commit_transaction()
    equal(reader.committed(partition), 5)
    producer.begin_transaction()
    send(producer, name, records(10, "aborted"))
    producer.abort_transaction()
    reader.close()
    reader = consumer(address, isolation_level="read_committed")
    reader.assign([TopicPartition(name, 0)])
    equal(pairs(taken(reader, 10)), records(10, "committed"))
    reader.close()
    producer.close()


def read_committed(address):
    name = made(address)
    producer = KafkaProducer(bootstrap_servers=address, transactional_id=topic("txn"))
    producer.init_transactions()
    for tag, ends in [("a", "abort"), ("b", "commit"), ("c", "abort"), ("d", "commit"), ("e", None)]:
        producer.begin_transaction()
        send(producer, name, records(10, tag))
        if ends == "abort":
            producer.abort_transaction()
        elif ends == "commit":
            producer.commit_transaction()
    for level, expected, end in [
        ("read_committed", records(10, "b") + records(10, "d"), 44),
        ("read_uncommitted", [pair for tag in "abcde" for pair in records(10, tag)], 54),
    ]:
        reader = consumer(address, isolation_level=level)
        partition = TopicPartition(name, 0)
        reader.assign([partition])
        equal(pairs(taken(reader, len(expected))), expected, level)
        equal(reader.end_offsets([partition]), {partition: end}, level)
        reader.close()
    producer.abort_transaction()
    producer.close()


def delete_records(address):
    name = made(address)
    produced(address, name, records(10))
    partition = TopicPartition(name, 0)
    found = admin(address).delete_records({partition: 4})
    equal(found[partition]["low_watermark"], 4)
    reader = consumer(address)
    equal(reader.beginning_offsets([partition]), {partition: 4})
    reader.assign([partition])
    equal([message.offset for message in taken(reader, 6)], list(range(4, 10)))
    reader.close()


def describe(address):
    name, group = made(address, 2, retention_ms="123456"), topic("group")
    reader = consumer(address, group)
    reader.subscribe([name])
    until("assignment", lambda: (reader.poll(100), len(reader.assignment()) == 2)[1])
    client = admin(address)
    cluster = client.describe_cluster()
    assert cluster["cluster_id"] and cluster["brokers"], cluster
    found = client.describe_topics([name])
    equal(len(found[0]["partitions"]), 2)
    config = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    assert "123456" in str(config), config
    groups = client.describe_groups([group])
    assert "Stable" in str(groups), groups
    assert group in str(client.list_groups())
    reader.close()
    client.delete_groups([group])


def alter(address):
    name = made(address)
    client = admin(address)
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "77777"})])
    plain = ConfigResource(ConfigResourceType.TOPIC, name)
    until("altered", lambda: "77777" in str(client.describe_configs([plain])))
    client.create_partitions({name: NewPartitions(3)})
    until("partitions", lambda: len(client.describe_topics([name])[0]["partitions"]) == 3)
    client.delete_topics([name])
    until("gone", lambda: name not in client.list_topics())


scenarios.run(scenarios.named(sys.modules[__name__]))
