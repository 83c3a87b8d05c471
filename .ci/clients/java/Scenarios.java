import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Scenarios of the Java client: {@code Scenarios ADDRESS [short | SCENARIO…]}. Says {@code ok NAME} or {@code failed NAME: why}; ends
 * with 1 if one failed.
 */
public class Scenarios {
    static final Duration PATIENCE = Duration.ofSeconds(30);
    static String address;
    static Admin admin;

    record Pair(String key, String value) {}

    static String fresh(String name) {
        return name + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    static List<Pair> records(int count, String tag) {
        var all = new ArrayList<Pair>();
        for (int at = 0; at < count; at++) {
            all.add(new Pair("k" + at, tag + at + "-" + "x".repeat(at % 7 * 50)));
        }
        return all;
    }

    static List<Long> offsets(long from, long to) {
        var all = new ArrayList<Long>();
        for (; from < to; from++) {
            all.add(from);
        }
        return all;
    }

    static void equal(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("found " + found + ", expected " + expected);
        }
    }

    static void that(boolean holds, Object what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void until(String what, Callable<Boolean> holds) throws Exception {
        for (long ends = System.nanoTime() + PATIENCE.toNanos(); !holds.call(); Thread.sleep(50)) {
            that(System.nanoTime() < ends, "not within " + PATIENCE + ": " + what);
        }
    }

    static <T> T cause(Class<T> of, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (ExecutionException error) {
            return of.cast(error.getCause());
        } catch (KafkaException error) {
            return of.cast(of.isInstance(error) ? error : error.getCause());
        }
        throw new AssertionError("no error, expected " + of);
    }

    static String made(int partitions, Map<String, String> config) throws Exception {
        var name = fresh("java");
        admin.createTopics(List.of(new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(config))).all().get();
        until("topic", () -> admin.listTopics().names().get().contains(name));
        return name;
    }

    static String made() throws Exception {
        return made(1, Map.of());
    }

    static KafkaProducer<String, String> producer(Object... settings) {
        return new KafkaProducer<>(config(settings), new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Object... settings) {
        var config = config(settings);
        config.putIfAbsent("auto.offset.reset", "earliest");
        config.putIfAbsent("enable.auto.commit", false);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    static Map<String, Object> config(Object... settings) {
        var config = new HashMap<String, Object>();
        config.put("bootstrap.servers", address);
        for (int at = 0; at < settings.length; at += 2) {
            config.put((String) settings[at], settings[at + 1]);
        }
        return config;
    }

    static List<Long> send(KafkaProducer<String, String> producer, String topic, int partition, List<Pair> what, Long begin)
            throws Exception {
        var futures = new ArrayList<Future<RecordMetadata>>();
        for (int at = 0; at < what.size(); at++) {
            var time = begin == null ? null : Long.valueOf(begin + at);
            var record = new ProducerRecord<>(topic, partition, time, what.get(at).key, what.get(at).value);
            record.headers().add("h", new byte[] {'1'});
            futures.add(producer.send(record));
        }
        producer.flush();
        var told = new ArrayList<Long>();
        for (var future : futures) {
            told.add(future.get().offset());
        }
        return told;
    }

    static void produced(String topic, int partition, List<Pair> what, Object... settings) throws Exception {
        try (var producer = producer(settings)) {
            send(producer, topic, partition, what, null);
        }
    }

    /** So many records, no fewer; and no more that come at once. */
    static List<ConsumerRecord<String, String>> taken(KafkaConsumer<String, String> consumer, int count) {
        var found = new ArrayList<ConsumerRecord<String, String>>();
        for (long ends = System.nanoTime() + PATIENCE.toNanos(); found.size() < count; ) {
            that(System.nanoTime() < ends, found.size() + " of " + count + " records");
            consumer.poll(Duration.ofMillis(100)).forEach(found::add);
        }
        consumer.poll(Duration.ofMillis(300)).forEach(found::add);
        equal(found.size(), count);
        return found;
    }

    static List<Pair> pairs(List<ConsumerRecord<String, String>> of) {
        return of.stream().map(each -> new Pair(each.key(), each.value())).toList();
    }

    static List<Long> at(List<ConsumerRecord<String, String>> of) {
        return of.stream().map(ConsumerRecord::offset).toList();
    }

    static KafkaConsumer<String, String> reader(String topic, int partition, Object... settings) {
        var consumer = consumer(settings);
        consumer.assign(List.of(new TopicPartition(topic, partition)));
        return consumer;
    }

    static void create() throws Exception {
        var name = made(3, Map.of());
        equal(admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions().size(), 3);
        var again = List.of(new NewTopic(name, 3, (short) 1));
        cause(TopicExistsException.class, () -> admin.createTopics(again).all().get());
    }

    static void produce() throws Exception {
        for (var codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            var name = made();
            produced(name, 0, records(200, codec), "compression.type", codec, "enable.idempotence", false, "linger.ms", 5);
            try (var reader = reader(name, 0)) {
                var found = taken(reader, 200);
                equal(pairs(found), records(200, codec));
                equal(at(found), offsets(0, 200));
                equal(found.get(0).headers().lastHeader("h").value()[0], (byte) '1');
            }
        }
    }

    static void idempotent() throws Exception {
        var name = made();
        produced(name, 0, records(500, "v"), "batch.size", 1000);
        try (var reader = reader(name, 0)) {
            equal(pairs(taken(reader, 500)), records(500, "v"));
        }
    }

    static void assign() throws Exception {
        var name = made(2, Map.of());
        produced(name, 1, records(20, "v"));
        var partition = new TopicPartition(name, 1);
        try (var reader = reader(name, 1)) {
            reader.seek(partition, 15);
            equal(at(taken(reader, 5)), offsets(15, 20));
            equal(reader.beginningOffsets(Set.of(partition)), Map.of(partition, 0L));
            equal(reader.endOffsets(Set.of(partition)), Map.of(partition, 20L));
            equal(reader.currentLag(partition).getAsLong(), 0L);
        }
    }

    /** Two consumers share the partitions; one leaves, the other has them all: every record once. */
    static void twoOfAGroup(Object... settings) throws Exception {
        var name = made(4, Map.of());
        var more = Arrays.copyOf(settings, settings.length + 2);
        more[settings.length] = "group.id";
        more[settings.length + 1] = fresh("group");
        try (var first = consumer(more)) {
            try (var second = consumer(more)) {
                first.subscribe(List.of(name));
                second.subscribe(List.of(name));
                until("two partitions each", () -> {
                    first.poll(Duration.ofMillis(100));
                    second.poll(Duration.ofMillis(100));
                    return first.assignment().size() == 2 && second.assignment().size() == 2;
                });
                var expected = new ArrayList<Pair>();
                for (int partition = 0; partition < 4; partition++) {
                    produced(name, partition, records(10, "p" + partition + "-"));
                    expected.addAll(records(10, "p" + partition + "-"));
                }
                var found = new ArrayList<>(pairs(taken(first, 20)));
                found.addAll(pairs(taken(second, 20)));
                found.sort((a, b) -> a.value.compareTo(b.value));
                expected.sort((a, b) -> a.value.compareTo(b.value));
                equal(found, expected);
                first.commitSync();
                second.commitSync();
            }
            until("all partitions", () -> {
                first.poll(Duration.ofMillis(100));
                return first.assignment().size() == 4;
            });
            for (int partition = 0; partition < 4; partition++) {
                produced(name, partition, records(1, "after"));
            }
            equal(pairs(taken(first, 4)), Collections.nCopies(4, records(1, "after").get(0)));
        }
    }

    /** A member with an instance id that comes back has its partitions without a rebalance. */
    static void staticMember() throws Exception {
        var name = made(2, Map.of());
        var group = fresh("group");
        for (int life = 0; life < 3; life++) {
            try (var one = consumer("group.id", group, "group.instance.id", "one")) {
                one.subscribe(List.of(name));
                until("assignment", () -> {
                    one.poll(Duration.ofMillis(100));
                    return one.assignment().size() == 2;
                });
                equal(one.groupMetadata().generationId(), 1);
            }
        }
    }

    static void commit() throws Exception {
        var name = made();
        var group = fresh("group");
        var partition = new TopicPartition(name, 0);
        produced(name, 0, records(10, "v"));
        try (var one = consumer("group.id", group)) {
            one.subscribe(List.of(name));
            var epoch = taken(one, 10).get(3).leaderEpoch();
            one.commitSync(Map.of(partition, new OffsetAndMetadata(4, epoch, "a note")));
            equal(one.committed(Set.of(partition)).get(partition).leaderEpoch(), epoch);
            equal(one.committed(Set.of(partition)).get(partition).metadata(), "a note");
        }
        try (var two = consumer("group.id", group)) {
            two.subscribe(List.of(name));
            equal(at(taken(two, 6)), offsets(4, 10));
        }
        var found = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        equal(found.get(partition).offset(), 4L);
        admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(7))).all().get();
        admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        equal(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get(), Map.of());
    }

    static void seekByTime() throws Exception {
        var name = made();
        long begin = System.currentTimeMillis() - 100_000;
        try (var producer = producer()) {
            send(producer, name, 0, records(50, "v"), begin);
        }
        var partition = new TopicPartition(name, 0);
        try (var reader = reader(name, 0)) {
            var found = reader.offsetsForTimes(Map.of(partition, begin + 30)).get(partition);
            equal(List.of(found.offset(), found.timestamp()), List.of(30L, begin + 30));
            equal(reader.offsetsForTimes(Map.of(partition, begin + 50)).get(partition), null);
            reader.seek(partition, found.offset());
            equal(taken(reader, 20).get(0).timestamp(), begin + 30);
        }
        var expected = new LinkedHashMap<OffsetSpec, Long>();
        expected.put(OffsetSpec.earliest(), 0L);
        expected.put(OffsetSpec.latest(), 50L);
        expected.put(OffsetSpec.maxTimestamp(), 49L);
        expected.put(OffsetSpec.forTimestamp(begin + 10), 10L);
        for (var each : expected.entrySet()) {
            equal(admin.listOffsets(Map.of(partition, each.getKey())).partitionResult(partition).get().offset(), each.getValue());
        }
    }

    static void transactional() throws Exception {
        var source = made();
        var name = made();
        var group = fresh("group");
        var id = fresh("txn");
        produced(source, 0, records(5, "v"));
        var partition = new TopicPartition(source, 0);
        try (var consumer = consumer("group.id", group, "isolation.level", "read_committed");
                var producer = producer("transactional.id", id, "compression.type", "lz4")) {
            consumer.subscribe(List.of(source));
            taken(consumer, 5);
            producer.initTransactions();
            producer.beginTransaction();
            send(producer, name, 0, records(10, "committed"), null);
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(5)), consumer.groupMetadata());
            producer.commitTransaction();
            equal(consumer.committed(Set.of(partition)).get(partition).offset(), 5L);
            producer.beginTransaction();
            send(producer, name, 0, records(10, "aborted"), null);
            producer.abortTransaction();
            producer.beginTransaction();
            producer.commitTransaction();
            // Another of the same name fences the first.
            producer.beginTransaction();
            try (var other = producer("transactional.id", id)) {
                other.initTransactions();
                var error = cause(RuntimeException.class, () -> send(producer, name, 0, records(1, "fenced"), null));
                that(error instanceof ProducerFencedException || error instanceof InvalidProducerEpochException, error);
            }
        }
        try (var reader = reader(name, 0, "isolation.level", "read_committed")) {
            equal(pairs(taken(reader, 10)), records(10, "committed"));
        }
    }

    static void readCommitted() throws Exception {
        var name = made();
        var id = fresh("txn");
        var partition = new TopicPartition(name, 0);
        try (var producer = producer("transactional.id", id)) {
            producer.initTransactions();
            for (var tag : List.of("a", "b", "c", "d", "e")) {
                producer.beginTransaction();
                send(producer, name, 0, records(10, tag), null);
                if (tag.equals("a") || tag.equals("c")) {
                    producer.abortTransaction();
                } else if (!tag.equals("e")) {
                    producer.commitTransaction();
                }
            }
            var expected = new ArrayList<>(records(10, "b"));
            expected.addAll(records(10, "d"));
            try (var reader = reader(name, 0, "isolation.level", "read_committed")) {
                equal(pairs(taken(reader, 20)), expected);
            }
            try (var reader = reader(name, 0)) {
                taken(reader, 50);
            }
            for (var level : Map.of(IsolationLevel.READ_COMMITTED, 44L, IsolationLevel.READ_UNCOMMITTED, 54L).entrySet()) {
                var options = new ListOffsetsOptions(level.getKey());
                var found = admin.listOffsets(Map.of(partition, OffsetSpec.latest()), options).partitionResult(partition).get();
                equal(found.offset(), level.getValue());
            }
            equal(admin.describeTransactions(Set.of(id)).description(id).get().state(), TransactionState.ONGOING);
            that(admin.listTransactions().all().get().stream().anyMatch(each -> each.transactionalId().equals(id)), "not listed");
            equal(admin.describeProducers(Set.of(partition)).partitionResult(partition).get().activeProducers().size(), 1);
            producer.abortTransaction();
        }
    }

    static void deleteRecords() throws Exception {
        var name = made();
        var partition = new TopicPartition(name, 0);
        produced(name, 0, records(10, "v"));
        var found = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4)));
        equal(found.lowWatermarks().get(partition).get().lowWatermark(), 4L);
        try (var reader = reader(name, 0)) {
            equal(reader.beginningOffsets(Set.of(partition)), Map.of(partition, 4L));
            equal(at(taken(reader, 6)), offsets(4, 10));
        }
    }

    static void describe() throws Exception {
        var name = made(2, Map.of("retention.ms", "123456"));
        var group = fresh("group");
        try (var one = consumer("group.id", group)) {
            one.subscribe(List.of(name));
            until("assignment", () -> {
                one.poll(Duration.ofMillis(100));
                return one.assignment().size() == 2;
            });
            var cluster = admin.describeCluster();
            that(!cluster.clusterId().get().isEmpty(), "no cluster id");
            that(cluster.nodes().get().contains(cluster.controller().get()), cluster.controller().get());
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
            var config = admin.describeConfigs(Set.of(resource)).all().get().get(resource);
            equal(config.get("retention.ms").value(), "123456");
            equal(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            equal(config.get("cleanup.policy").value(), "delete");
            that(config.get("cleanup.policy").isDefault(), config);
            var groups = admin.describeConsumerGroups(Set.of(group)).all().get();
            equal(groups.get(group).groupState(), GroupState.STABLE);
            equal(groups.get(group).members().size(), 1);
            var listed = admin.listGroups().all().get().stream().map(GroupListing::groupId).toList();
            that(listed.contains(group), listed);
            var broker = cluster.nodes().get().iterator().next().id();
            that(!admin.describeLogDirs(Set.of(broker)).allDescriptions().get().get(broker).isEmpty(), "no log dirs");
            equal(admin.listPartitionReassignments().reassignments().get(), Map.of());
            that(admin.describeFeatures().featureMetadata().get().finalizedFeatures() != null, "no features");
        }
        admin.deleteConsumerGroups(Set.of(group)).all().get();
    }

    static void alter() throws Exception {
        var name = made();
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
        var set = new AlterConfigOp(new ConfigEntry("retention.ms", "77777"), AlterConfigOp.OpType.SET);
        var append = new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set, append))).all().get();
        until("altered", () -> {
            var config = admin.describeConfigs(Set.of(resource)).all().get().get(resource);
            return config.get("retention.ms").value().equals("77777") && config.get("cleanup.policy").value().equals("delete,compact");
        });
        admin.createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all().get();
        until("partitions", () -> admin.describeTopics(Set.of(name)).allTopicNames().get().get(name).partitions().size() == 3);
        admin.deleteTopics(Set.of(name)).all().get();
        until("gone", () -> !admin.listTopics().names().get().contains(name));
    }

    interface Scenario {
        void run() throws Exception;
    }

    static Map<String, Scenario> scenarios() {
        var all = new LinkedHashMap<String, Scenario>();
        all.put("create", Scenarios::create);
        all.put("produce", Scenarios::produce);
        all.put("idempotent", Scenarios::idempotent);
        all.put("assign", Scenarios::assign);
        all.put("group-range", () -> twoOfAGroup("partition.assignment.strategy", RangeAssignor.class.getName()));
        all.put("group-sticky", () -> twoOfAGroup("partition.assignment.strategy", StickyAssignor.class.getName()));
        all.put("group-cooperative", () -> twoOfAGroup("partition.assignment.strategy", CooperativeStickyAssignor.class.getName()));
        all.put("group-consumer", () -> twoOfAGroup("group.protocol", "consumer"));
        all.put("static-member", Scenarios::staticMember);
        all.put("commit", Scenarios::commit);
        all.put("seek-by-time", Scenarios::seekByTime);
        all.put("transactional", Scenarios::transactional);
        all.put("read-committed", Scenarios::readCommitted);
        all.put("delete-records", Scenarios::deleteRecords);
        all.put("describe", Scenarios::describe);
        all.put("alter", Scenarios::alter);
        return all;
    }

    public static void main(String[] arguments) {
        address = arguments[0];
        var chosen = Arrays.asList(arguments).subList(1, arguments.length);
        admin = Admin.create(config());
        int failed = 0;
        for (var each : scenarios().entrySet()) {
            var name = each.getKey();
            if (!chosen.isEmpty() && !chosen.get(0).equals("short") && !chosen.contains(name)) {
                continue;
            }
            long began = System.currentTimeMillis();
            try {
                each.getValue().run();
                System.out.println("ok " + name);
            } catch (Throwable error) {
                failed = 1;
                error.printStackTrace();
                var why = String.valueOf(error).replaceAll("\\s+", " ");
                System.out.println("failed " + name + ": " + why.substring(0, Math.min(300, why.length())));
            }
            System.err.println(name + ": " + (System.currentTimeMillis() - began) + " ms");
        }
        // A client that hangs keeps nobody waiting.
        Runtime.getRuntime().halt(failed);
    }
}
