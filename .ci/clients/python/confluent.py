"""Scenarios of confluent-kafka, which is librdkafka."""

import functools
import sys
import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

import scenarios
from scenarios import CODECS, PATIENCE, equal, records, topic, until


@functools.cache
def admin(address):
    """One for all: what an admin call began ends with its client."""
    return AdminClient({"bootstrap.servers": address})


def done(futures):
    """The result of each of what an admin call began."""
    return {key: future.result(PATIENCE) for key, future in futures.items()}


def made(address, partitions=1, **config):
    name = topic("confluent")
    settings = {key.replace("_", "."): value for key, value in config.items()}
    done(admin(address).create_topics([NewTopic(name, partitions, 1, config=settings)]))
    until("topic", lambda: name in admin(address).list_topics(timeout=PATIENCE).topics)
    return name


def produced(address, name, what, partition=0, timestamp=None, **config):
    """Produces to one partition and gives the offsets that were acknowledged, in the order of the records."""
    settings = {key.replace("_", "."): value for key, value in config.items()}
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, **settings})
    send(producer, name, what, partition, timestamp)


def send(producer, name, what, partition=0, timestamp=None):
    failures = []
    offsets = []

    def told(error, message):
        failures.append(error) if error else offsets.append(message.offset())

    for at, (key, value) in enumerate(what):
        more = {"timestamp": timestamp + at} if timestamp else {}
        producer.produce(name, value, key, partition, on_delivery=told, headers=[("h", b"1")], **more)
    equal(producer.flush(PATIENCE), 0, "not delivered:")
    equal(failures, [])
    equal(len(offsets), len(what))


def consumer(address, group="confluent-none", **config):
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return Consumer({
        "bootstrap.servers": address,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        **settings,
    })


def taken(reader, count):
    """So many records, no fewer; and no more that come at once."""
    found = []
    ends = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} records within {PATIENCE} s"
        message = reader.poll(0.2)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        found.append(message)
    more = reader.poll(0.3)
    assert more is None, f"more than {count}: {more.error() or more.value()}"
    return found


def pairs(messages):
    return [(message.key(), message.value()) for message in messages]


def create(address):
    name = made(address, 3)
    equal(len(admin(address).list_topics(name, PATIENCE).topics[name].partitions), 3)
    try:
        done(admin(address).create_topics([NewTopic(name, 3, 1)]))
        raise AssertionError("a topic was created twice")
    except KafkaException as error:
        equal(error.args[0].name(), "TOPIC_ALREADY_EXISTS")


def produce(address):
    for codec in CODECS:
        name = made(address)
        produced(address, name, records(200, codec), compression_type=codec)
        reader = consumer(address)
        reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
        found = taken(reader, 200)
        equal(pairs(found), records(200, codec), codec)
        equal([message.offset() for message in found], list(range(200)))
        equal(found[0].headers(), [("h", b"1")])
        reader.close()


def idempotent(address):
    name = made(address)
    produced(address, name, records(500), enable_idempotence=True, batch_num_messages=10)
    reader = consumer(address)
    reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal(pairs(taken(reader, 500)), records(500))
    reader.close()


def assign(address):
    name = made(address, 2)
    produced(address, name, records(20), 1)
    reader = consumer(address)
    reader.assign([TopicPartition(name, 0, 0), TopicPartition(name, 1, 15)])
    equal([message.offset() for message in taken(reader, 5)], list(range(15, 20)))
    equal(reader.get_watermark_offsets(TopicPartition(name, 1), PATIENCE), (0, 20))
    reader.seek(TopicPartition(name, 1, 18))
    equal([message.offset() for message in taken(reader, 2)], [18, 19])
    reader.close()


def two_of_a_group(address, **config):
    """Two consumers share the partitions, one leaves, the other has them all: every record once."""
    name, group = made(address, 4), topic("group")
    first, second = consumer(address, group, **config), consumer(address, group, **config)
    first.subscribe([name])
    second.subscribe([name])

    def both_have_two():
        first.poll(0.1), second.poll(0.1)
        return len(first.assignment()) == 2 and len(second.assignment()) == 2

    until("two partitions each", both_have_two)
    for partition in range(4):
        produced(address, name, records(10, f"p{partition}-"), partition)
    found = pairs(taken(first, 20)) + pairs(taken(second, 20))
    equal(sorted(found), sorted(pair for p in range(4) for pair in records(10, f"p{p}-")))
    first.commit(asynchronous=False), second.commit(asynchronous=False)
    second.close()
    until("all partitions", lambda: (first.poll(0.1), len(first.assignment()) == 4)[1])
    for partition in range(4):
        produced(address, name, records(1, "after"), partition)
    equal(pairs(taken(first, 4)), records(1, "after") * 4)
    first.close()


def group_classic(address):
    two_of_a_group(address)


def group_cooperative(address):
    two_of_a_group(address, partition_assignment_strategy="cooperative-sticky")


def group_consumer(address):
    two_of_a_group(address, group_protocol="consumer")


def commit(address):
    name, group = made(address), topic("group")
    produced(address, name, records(10))
    reader = consumer(address, group)
    reader.subscribe([name])
    found = taken(reader, 10)
    reader.commit(message=found[3], asynchronous=False)
    equal(reader.committed([TopicPartition(name, 0)], PATIENCE)[0].offset, 4)
    reader.close()
    again = consumer(address, group)
    again.subscribe([name])
    equal([message.offset() for message in taken(again, 6)], list(range(4, 10)))
    again.close()
    offsets = done(admin(address).list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    equal([each.offset for each in offsets[group].topic_partitions], [4])


def seek_by_time(address):
    name = made(address)
    begin = int(time.time() * 1000) - 100_000
    produced(address, name, records(50), timestamp=begin)
    reader = consumer(address)
    asked = [TopicPartition(name, 0, begin + 30)]
    equal(reader.offsets_for_times(asked, PATIENCE)[0].offset, 30)
    reader.assign([TopicPartition(name, 0, 30)])
    equal(taken(reader, 20)[0].timestamp()[1], begin + 30)
    equal(reader.offsets_for_times([TopicPartition(name, 0, begin + 50)], PATIENCE)[0].offset, -1)
    reader.close()
    for spec, expected in [(OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 50), (OffsetSpec.max_timestamp(), 49)]:
        found = done(admin(address).list_offsets({TopicPartition(name, 0): spec}))
        equal([each.offset for each in found.values()], [expected], str(spec))


def transactional(address):
    source, name, group = made(address), made(address), topic("group")
    produced(address, source, records(5))
    reader = consumer(address, group)
    reader.subscribe([source])
    taken(reader, 5)
    settings = {"bootstrap.servers": address, "transactional.id": topic("txn"), "compression.type": "lz4"}
    producer = Producer(settings)
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    send(producer, name, records(10, "committed"))
    offsets = reader.position(reader.assignment())
    producer.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), PATIENCE)
    producer.commit_transaction(PATIENCE)
    equal(reader.committed([TopicPartition(source, 0)], PATIENCE)[0].offset, 5)
    producer.begin_transaction()
    send(producer, name, records(10, "aborted"))
    producer.abort_transaction(PATIENCE)
    # Another of the same name fences the first.
    other = Producer(settings)
    other.init_transactions(PATIENCE)
    producer.begin_transaction()
    producer.produce(name, b"fenced", partition=0)
    try:
        producer.commit_transaction(PATIENCE)
        raise AssertionError("a fenced producer committed")
    except KafkaException as error:
        assert error.args[0].fatal(), error
    reader.close()


def read_committed(address):
    name = made(address)
    producer = Producer({"bootstrap.servers": address, "transactional.id": topic("txn")})
    producer.init_transactions(PATIENCE)
    for tag, ends in [("a", "abort"), ("b", "commit"), ("c", "abort"), ("d", "commit"), ("e", None)]:
        producer.begin_transaction()
        send(producer, name, records(10, tag))
        if ends == "abort":
            producer.abort_transaction(PATIENCE)
        elif ends == "commit":
            producer.commit_transaction(PATIENCE)
    reader = consumer(address, isolation_level="read_committed")
    reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal(pairs(taken(reader, 20)), records(10, "b") + records(10, "d"))
    reader.close()
    reader = consumer(address, isolation_level="read_uncommitted")
    reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    taken(reader, 50)
    reader.close()
    latest = {TopicPartition(name, 0): OffsetSpec.latest()}
    for level, expected in [(IsolationLevel.READ_COMMITTED, 44), (IsolationLevel.READ_UNCOMMITTED, 54)]:
        found = done(admin(address).list_offsets(latest, isolation_level=level))
        equal([each.offset for each in found.values()], [expected], str(level))
    producer.abort_transaction(PATIENCE)


def delete_records(address):
    name = made(address)
    produced(address, name, records(10))
    found = done(admin(address).delete_records([TopicPartition(name, 0, 4)]))
    equal([each.low_watermark for each in found.values()], [4])
    reader = consumer(address)
    equal(reader.get_watermark_offsets(TopicPartition(name, 0), PATIENCE), (4, 10))
    reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal([message.offset() for message in taken(reader, 6)], list(range(4, 10)))
    reader.close()


def describe(address):
    name, group = made(address, 2, retention_ms="123456"), topic("group")
    reader = consumer(address, group)
    reader.subscribe([name])
    until("assignment", lambda: (reader.poll(0.1), len(reader.assignment()) == 2)[1])
    client = admin(address)
    cluster = client.describe_cluster().result(PATIENCE)
    assert cluster.cluster_id
    assert cluster.controller.id in [node.id for node in cluster.nodes], cluster.controller
    topics = done(client.describe_topics(TopicCollection([name])))
    equal(len(topics[name].partitions), 2)
    found = done(client.describe_configs([ConfigResource(ResourceType.TOPIC, name)]))
    config = next(iter(found.values()))
    equal(config["retention.ms"].value, "123456")
    equal(config["cleanup.policy"].value, "delete")
    groups = done(client.describe_consumer_groups([group]))
    equal(groups[group].state.name, "STABLE")
    equal(len(groups[group].members), 1)
    listed = client.list_consumer_groups().result(PATIENCE)
    assert group in [each.group_id for each in listed.valid], listed.valid
    reader.close()
    done(client.delete_consumer_groups([group]))


def alter(address):
    name = made(address)
    client = admin(address)
    entry = ConfigEntry("retention.ms", "77777", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    done(client.incremental_alter_configs([resource]))
    plain = ConfigResource(ResourceType.TOPIC, name)

    def altered():
        found = next(iter(done(client.describe_configs([plain])).values()))
        return found["retention.ms"].value == "77777"

    until("altered", altered)
    done(client.create_partitions([NewPartitions(name, 3)]))
    until("partitions", lambda: len(client.list_topics(name, PATIENCE).topics[name].partitions) == 3)
    done(client.delete_topics([name]))
    until("gone", lambda: name not in client.list_topics(timeout=PATIENCE).topics)


scenarios.run(scenarios.named(sys.modules[__name__]))
