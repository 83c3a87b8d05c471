import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/**
 * A Streams application that counts the records of each key, exactly once, for {@code streams} to kill and start again:
 * {@code run ADDRESS ID FOLDER}, {@code fill ADDRESS ID COUNT}, {@code await ADDRESS ID COUNT} and {@code check ADDRESS ID COUNT}, where
 * topics are named by the id.
 */
public class ExactlyOnce {
    static final int KEYS = 10;

    static Properties config(String address, Object... settings) {
        var config = new Properties();
        config.put("bootstrap.servers", address);
        for (int at = 0; at < settings.length; at += 2) {
            config.put(settings[at], settings[at + 1]);
        }
        return config;
    }

    static void run(String address, String id, String folder) {
        var builder = new StreamsBuilder();
        builder.<String, String>stream(id + "-in").groupByKey().count().toStream().mapValues(Object::toString).to(id + "-out");
        var config = config(
                address,
                "application.id", id,
                "state.dir", folder,
                "processing.guarantee", "exactly_once_v2",
                "commit.interval.ms", 100,
                "statestore.cache.max.bytes", 0L,
                "num.stream.threads", 2,
                "default.key.serde", Serdes.StringSerde.class.getName(),
                "default.value.serde", Serdes.StringSerde.class.getName(),
                // So that the place of who was killed is soon taken.
                "consumer.session.timeout.ms", 6000,
                "consumer.heartbeat.interval.ms", 500,
                "producer.transaction.timeout.ms", 10_000);
        var streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    /** Some 500 records a second. */
    static void fill(String address, String id, int count) throws InterruptedException {
        try (var producer = new KafkaProducer<>(config(address), new StringSerializer(), new StringSerializer())) {
            for (int at = 0; at < count; at++) {
                producer.send(new ProducerRecord<>(id + "-in", "key" + at % KEYS, "value" + at));
                Thread.sleep(2);
            }
        }
    }

    /** Every count of every key is there once, in order: a record that was counted twice or lost would show. None comes later if it is all. */
    static void check(String address, String id, int count, boolean isAll) {
        var config = config(address, "isolation.level", "read_committed", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            var partitions = consumer.partitionsFor(id + "-out").stream().map(each -> new TopicPartition(id + "-out", each.partition()));
            consumer.assign(partitions.toList());
            Map<String, Integer> counts = new HashMap<>();
            int found = 0;
            for (long ends = System.nanoTime() + Duration.ofSeconds(90).toNanos(); found < count; ) {
                if (System.nanoTime() > ends) {
                    throw new AssertionError(found + " of " + count + " counts: " + counts);
                }
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    found++;
                    int next = counts.merge(record.key(), 1, Integer::sum);
                    if (!record.value().equals(String.valueOf(next))) {
                        throw new AssertionError(record + ", expected " + next);
                    }
                }
            }
            for (var record : isAll ? consumer.poll(Duration.ofSeconds(1)) : List.<ConsumerRecord<String, String>>of()) {
                throw new AssertionError("one more: " + record);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var rest = List.of(arguments);
        switch (rest.get(0)) {
            case "run" -> run(rest.get(1), rest.get(2), rest.get(3));
            case "fill" -> fill(rest.get(1), rest.get(2), Integer.parseInt(rest.get(3)));
            case "await" -> check(rest.get(1), rest.get(2), Integer.parseInt(rest.get(3)), false);
            case "check" -> check(rest.get(1), rest.get(2), Integer.parseInt(rest.get(3)), true);
            default -> throw new IllegalArgumentException(rest.get(0));
        }
    }
}
