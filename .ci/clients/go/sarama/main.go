// Scenarios of sarama: sarama ADDRESS [short | SCENARIO…]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	. "s3stream/clients/scenario"

	"github.com/IBM/sarama"
)

var address = []string{os.Args[1]}

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Return.Errors = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	return config
}

// admin runs with an admin client.
func admin(work func(sarama.ClusterAdmin)) {
	one := Must(sarama.NewClusterAdmin(address, settings()))
	defer one.Close()
	work(one)
}

func made(partitions int32, config map[string]string) string {
	name := Fresh("sarama")
	entries := map[string]*string{}
	for key, value := range config {
		entries[key] = &value
	}
	admin(func(one sarama.ClusterAdmin) {
		detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}
		Ok(one.CreateTopic(name, detail, false))
	})
	return name
}

func messages(topic string, partition int32, what []Record, begin time.Time) []*sarama.ProducerMessage {
	var all []*sarama.ProducerMessage
	for at, each := range what {
		message := &sarama.ProducerMessage{
			Topic:     topic,
			Partition: partition,
			Key:       sarama.StringEncoder(each.Key),
			Value:     sarama.StringEncoder(each.Value),
			Headers:   []sarama.RecordHeader{{Key: []byte("h"), Value: []byte("1")}},
		}
		if !begin.IsZero() {
			message.Timestamp = begin.Add(time.Duration(at) * time.Millisecond)
		}
		all = append(all, message)
	}
	return all
}

func producer(with func(*sarama.Config)) sarama.SyncProducer {
	config := settings()
	with(config)
	return Must(sarama.NewSyncProducer(address, config))
}

func plain(*sarama.Config) {}

func once(config *sarama.Config) {
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
}

func transacting(id string) func(*sarama.Config) {
	return func(config *sarama.Config) {
		once(config)
		config.Producer.Transaction.ID = id
	}
}

func produced(topic string, partition int32, what []Record, with func(*sarama.Config)) {
	one := producer(with)
	defer one.Close()
	Ok(one.SendMessages(messages(topic, partition, what, time.Time{})))
}

// read is so many records of a partition from an offset on, no fewer; and no more that come at once.
func read(topic string, partition int32, offset int64, count int, level sarama.IsolationLevel) []*sarama.ConsumerMessage {
	config := settings()
	config.Consumer.IsolationLevel = level
	consumer := Must(sarama.NewConsumer(address, config))
	defer consumer.Close()
	one := Must(consumer.ConsumePartition(topic, partition, offset))
	defer one.Close()
	var found []*sarama.ConsumerMessage
	for late := time.After(Patience); len(found) < count; {
		select {
		case message := <-one.Messages():
			found = append(found, message)
		case err := <-one.Errors():
			panic(err)
		case <-late:
			panic(fmt.Sprint(len(found), " of ", count, " records"))
		}
	}
	select {
	case message := <-one.Messages():
		panic(fmt.Sprint("one more record, at ", message.Offset))
	case <-time.After(300 * time.Millisecond):
	}
	return found
}

func records(of []*sarama.ConsumerMessage) []Record {
	var all []Record
	for _, each := range of {
		all = append(all, Record{Key: string(each.Key), Value: string(each.Value)})
	}
	return all
}

func offsets(of []*sarama.ConsumerMessage) []int64 {
	var all []int64
	for _, each := range of {
		all = append(all, each.Offset)
	}
	return all
}

func create() {
	name := made(3, nil)
	admin(func(one sarama.ClusterAdmin) {
		Equal(len(Must(one.DescribeTopics([]string{name}))[0].Partitions), 3)
		err := one.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false)
		if !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			panic(err)
		}
	})
}

func produce() {
	codecs := []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	}
	for at, codec := range codecs {
		name, what := made(1, nil), Records(200, Codecs[at])
		produced(name, 0, what, func(config *sarama.Config) { config.Producer.Compression = codec })
		found := read(name, 0, sarama.OffsetOldest, 200, sarama.ReadUncommitted)
		Equal(records(found), what)
		Equal(offsets(found), Offsets(0, 200))
		Equal(string(found[0].Headers[0].Value), "1")
	}
}

func idempotent() {
	name := made(1, nil)
	produced(name, 0, Records(500, "v"), func(config *sarama.Config) {
		once(config)
		config.Producer.Flush.MaxMessages = 10
	})
	Equal(records(read(name, 0, sarama.OffsetOldest, 500, sarama.ReadUncommitted)), Records(500, "v"))
}

func assign() {
	name := made(2, nil)
	produced(name, 1, Records(20, "v"), plain)
	Equal(offsets(read(name, 1, 15, 5, sarama.ReadUncommitted)), Offsets(15, 20))
}

// member of a group: what it reads, and how many partitions it has.
type member struct {
	group sarama.ConsumerGroup
	stop  context.CancelFunc
	ended chan error
	// commits says how many records are committed before the next is read; below 0 all are.
	commits  int
	lock     sync.Mutex
	found    []*sarama.ConsumerMessage
	assigned int
}

func joined(topic, group string, commits int, strategy sarama.BalanceStrategy) *member {
	config := settings()
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	one := &member{
		group:   Must(sarama.NewConsumerGroup(address, group, config)),
		stop:    stop,
		ended:   make(chan error, 1),
		commits: commits,
	}
	go func() {
		for ctx.Err() == nil {
			if err := one.group.Consume(ctx, []string{topic}, one); err != nil {
				fmt.Fprintln(os.Stderr, err)
				time.Sleep(100 * time.Millisecond)
			}
		}
		one.ended <- one.group.Close()
	}()
	return one
}

func (one *member) leave() {
	one.stop()
	Ok(<-one.ended)
}

func (one *member) Setup(session sarama.ConsumerGroupSession) error {
	one.lock.Lock()
	defer one.lock.Unlock()
	one.assigned = 0
	for _, partitions := range session.Claims() {
		one.assigned += len(partitions)
	}
	return nil
}

func (one *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (one *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		one.lock.Lock()
		one.found = append(one.found, message)
		if one.commits < 0 || len(one.found) <= one.commits {
			session.MarkMessage(message, "a note")
			session.Commit()
		}
		one.lock.Unlock()
	}
	return nil
}

func (one *member) has(partitions int) bool {
	one.lock.Lock()
	defer one.lock.Unlock()
	return one.assigned == partitions
}

// take is so many records that came.
func (one *member) take(count int) []*sarama.ConsumerMessage {
	found := func() int {
		one.lock.Lock()
		defer one.lock.Unlock()
		return len(one.found)
	}
	Until(fmt.Sprint(count, " records"), func() bool { return found() >= count })
	Equal(found(), count)
	one.lock.Lock()
	defer one.lock.Unlock()
	all := one.found
	one.found = nil
	return all
}

// twoOfAGroup share the partitions; one leaves, the other has them all: every record once.
func twoOfAGroup(strategy sarama.BalanceStrategy) {
	name, group := made(4, nil), Fresh("group")
	first, second := joined(name, group, -1, strategy), joined(name, group, -1, strategy)
	Until("two partitions each", func() bool { return first.has(2) && second.has(2) })
	var expected []Record
	for partition := range int32(4) {
		produced(name, partition, Records(10, "before"), plain)
		expected = append(expected, Records(10, "before")...)
	}
	found := append(records(first.take(20)), records(second.take(20))...)
	order := func(a, b Record) int { return strings.Compare(a.Value, b.Value) }
	slices.SortFunc(found, order)
	slices.SortFunc(expected, order)
	Equal(found, expected)
	second.leave()
	Until("all partitions", func() bool { return first.has(4) })
	for partition := range int32(4) {
		produced(name, partition, Records(1, "after"), plain)
	}
	Equal(records(first.take(4)), slices.Repeat(Records(1, "after"), 4))
	first.leave()
}

func commit() {
	name, group := made(1, nil), Fresh("group")
	produced(name, 0, Records(10, "v"), plain)
	first := joined(name, group, 4, sarama.NewBalanceStrategyRange())
	first.take(10)
	first.leave()
	second := joined(name, group, 0, sarama.NewBalanceStrategyRange())
	Equal(offsets(second.take(6)), Offsets(4, 10))
	second.leave()
	admin(func(one sarama.ClusterAdmin) {
		block := Must(one.ListConsumerGroupOffsets(group, map[string][]int32{name: {0}})).GetBlock(name, 0)
		Equal(block.Offset, int64(4))
		Equal(block.Metadata, "a note")
	})
}

func seekByTime() {
	name, begin := made(1, nil), time.Now().Add(-100*time.Second).Truncate(time.Millisecond)
	one := producer(plain)
	Ok(one.SendMessages(messages(name, 0, Records(50, "v"), begin)))
	Ok(one.Close())
	client := Must(sarama.NewClient(address, settings()))
	defer client.Close()
	Equal(Must(client.GetOffset(name, 0, begin.UnixMilli()+30)), int64(30))
	Equal(Must(client.GetOffset(name, 0, sarama.OffsetNewest)), int64(50))
	Equal(read(name, 0, 30, 20, sarama.ReadUncommitted)[0].Timestamp.UnixMilli(), begin.UnixMilli()+30)
}

func transactional() {
	source, name, group, id := made(1, nil), made(1, nil), Fresh("group"), Fresh("txn")
	produced(source, 0, Records(5, "v"), plain)
	one := producer(transacting(id))
	Ok(one.BeginTxn())
	Ok(one.SendMessages(messages(name, 0, Records(10, "committed"), time.Time{})))
	at := []*sarama.PartitionOffsetMetadata{{Partition: 0, Offset: 5, LeaderEpoch: -1}}
	Ok(one.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{source: at}, group))
	Ok(one.CommitTxn())
	admin(func(client sarama.ClusterAdmin) {
		Until("offsets of the transaction", func() bool {
			found := Must(client.ListConsumerGroupOffsets(group, map[string][]int32{source: {0}}))
			return found.GetBlock(source, 0).Offset == 5
		})
	})
	Ok(one.BeginTxn())
	Ok(one.SendMessages(messages(name, 0, Records(10, "aborted"), time.Time{})))
	Ok(one.AbortTxn())
	// One without anything in it ends as well.
	Ok(one.BeginTxn())
	Ok(one.CommitTxn())
	// Another of the same name fences the first.
	Ok(one.BeginTxn())
	other := producer(transacting(id))
	defer other.Close()
	if one.SendMessages(messages(name, 0, Records(1, "fenced"), time.Time{})) == nil && one.CommitTxn() == nil {
		panic("a fenced producer committed")
	}
	one.Close()
	Equal(records(read(name, 0, sarama.OffsetOldest, 10, sarama.ReadCommitted)), Records(10, "committed"))
}

func readCommitted() {
	name := made(1, nil)
	one := producer(transacting(Fresh("txn")))
	defer one.Close()
	for _, tag := range []string{"a", "b", "c", "d", "e"} {
		Ok(one.BeginTxn())
		Ok(one.SendMessages(messages(name, 0, Records(10, tag), time.Time{})))
		switch tag {
		case "a", "c":
			Ok(one.AbortTxn())
		case "b", "d":
			Ok(one.CommitTxn())
		}
	}
	expected := append(Records(10, "b"), Records(10, "d")...)
	Equal(records(read(name, 0, sarama.OffsetOldest, 20, sarama.ReadCommitted)), expected)
	read(name, 0, sarama.OffsetOldest, 50, sarama.ReadUncommitted)
	Ok(one.AbortTxn())
}

func deleteRecords() {
	name := made(1, nil)
	produced(name, 0, Records(10, "v"), plain)
	admin(func(one sarama.ClusterAdmin) { Ok(one.DeleteRecords(name, map[int32]int64{0: 4})) })
	Equal(offsets(read(name, 0, sarama.OffsetOldest, 6, sarama.ReadUncommitted)), Offsets(4, 10))
}

func describe() {
	name, group := made(2, map[string]string{"retention.ms": "123456"}), Fresh("group")
	one := joined(name, group, -1, sarama.NewBalanceStrategyRange())
	Until("all partitions", func() bool { return one.has(2) })
	admin(func(client sarama.ClusterAdmin) {
		brokers, controller, err := client.DescribeCluster()
		Ok(err)
		if !slices.ContainsFunc(brokers, func(each *sarama.Broker) bool { return each.ID() == controller }) {
			panic("the controller is no broker")
		}
		resource := sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: []string{"retention.ms"}}
		config := Must(client.DescribeConfig(resource))
		Equal(len(config), 1)
		Equal(config[0].Value, "123456")
		groups := Must(client.DescribeConsumerGroups([]string{group}))
		Equal(groups[0].State, "Stable")
		Equal(len(groups[0].Members), 1)
		Equal(Must(client.ListConsumerGroups())[group], "consumer")
		one.leave()
		Ok(client.DeleteConsumerGroup(group))
	})
}

func alter() {
	name, value := made(1, nil), "77777"
	admin(func(one sarama.ClusterAdmin) {
		entry := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}
		Ok(one.IncrementalAlterConfig(sarama.TopicResource, name, entry, false))
		Until("altered", func() bool {
			config := Must(one.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: name}))
			return slices.ContainsFunc(config, func(each sarama.ConfigEntry) bool { return each.Value == value })
		})
		Ok(one.CreatePartitions(name, 3, nil, false))
		Until("partitions", func() bool { return len(Must(one.DescribeTopics([]string{name}))[0].Partitions) == 3 })
		Ok(one.DeleteTopic(name))
		Until("gone", func() bool { _, there := Must(one.ListTopics())[name]; return !there })
	})
}

func main() {
	Main([]One{
		{Name: "create", Run: create},
		{Name: "produce", Run: produce},
		{Name: "idempotent", Run: idempotent},
		{Name: "assign", Run: assign},
		{Name: "group-classic", Run: func() { twoOfAGroup(sarama.NewBalanceStrategyRange()) }},
		{Name: "group-sticky", Run: func() { twoOfAGroup(sarama.NewBalanceStrategySticky()) }},
		{Name: "commit", Run: commit},
		{Name: "seek-by-time", Run: seekByTime},
		{Name: "transactional", Run: transactional},
		{Name: "read-committed", Run: readCommitted},
		{Name: "delete-records", Run: deleteRecords},
		{Name: "describe", Run: describe},
		{Name: "alter", Run: alter},
	}, os.Args[2:])
}
