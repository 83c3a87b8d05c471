// Scenarios of franz-go: franz ADDRESS [short | SCENARIO…]
package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	. "s3stream/clients/scenario"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	address = os.Args[1]
	ctx     = context.Background()
)

func client(options ...kgo.Opt) *kgo.Client {
	options = append(options, kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return Must(kgo.NewClient(options...))
}

// admin runs with an admin client.
func admin(work func(*kadm.Client)) {
	one := kadm.NewClient(client())
	defer one.Close()
	work(one)
}

func made(partitions int32, config map[string]string) string {
	name := Fresh("franz-go")
	settings := map[string]*string{}
	for key, value := range config {
		settings[key] = kadm.StringPtr(value)
	}
	admin(func(one *kadm.Client) { Ok(Must(one.CreateTopic(ctx, partitions, 1, settings, name)).Err) })
	return name
}

func send(one *kgo.Client, topic string, partition int32, what []Record, begin time.Time) {
	var all []*kgo.Record
	for at, each := range what {
		record := &kgo.Record{
			Topic:     topic,
			Partition: partition,
			Key:       []byte(each.Key),
			Value:     []byte(each.Value),
			Headers:   []kgo.RecordHeader{{Key: "h", Value: []byte("1")}},
		}
		if !begin.IsZero() {
			record.Timestamp = begin.Add(time.Duration(at) * time.Millisecond)
		}
		all = append(all, record)
	}
	Ok(one.ProduceSync(ctx, all...).FirstErr())
}

func produced(topic string, partition int32, what []Record, options ...kgo.Opt) {
	one := client(options...)
	defer one.Close()
	send(one, topic, partition, what, time.Time{})
}

// taken is so many records, no fewer; and no more that come at once.
func taken(one *kgo.Client, count int) []*kgo.Record {
	var all []*kgo.Record
	patience, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for len(all) < count {
		fetches := one.PollFetches(patience)
		Ok(fetches.Err())
		all = append(all, fetches.Records()...)
	}
	moment, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	all = append(all, one.PollFetches(moment).Records()...)
	Equal(len(all), count)
	return all
}

func records(of []*kgo.Record) []Record {
	var all []Record
	for _, each := range of {
		all = append(all, Record{Key: string(each.Key), Value: string(each.Value)})
	}
	return all
}

func offsets(of []*kgo.Record) []int64 {
	var all []int64
	for _, each := range of {
		all = append(all, each.Offset)
	}
	return all
}

// reader is assigned one partition from an offset on.
func reader(topic string, partition int32, offset kgo.Offset, options ...kgo.Opt) *kgo.Client {
	at := map[string]map[int32]kgo.Offset{topic: {partition: offset}}
	return client(append(options, kgo.ConsumePartitions(at))...)
}

func member(topic, group string, options ...kgo.Opt) *kgo.Client {
	return client(append(options,
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)...)
}

func create() {
	name := made(3, nil)
	admin(func(one *kadm.Client) {
		Equal(len(Must(one.ListTopics(ctx, name))[name].Partitions), 3)
		again := Must(one.CreateTopics(ctx, 3, 1, nil, name))
		if !errors.Is(again[name].Err, kerr.TopicAlreadyExists) {
			panic(again[name].Err)
		}
	})
}

func produce() {
	codecs := []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
	for at, codec := range codecs {
		name, what := made(1, nil), Records(200, Codecs[at])
		produced(name, 0, what, kgo.ProducerBatchCompression(codec), kgo.DisableIdempotentWrite())
		one := reader(name, 0, kgo.NewOffset().AtStart())
		found := taken(one, 200)
		Equal(records(found), what)
		Equal(offsets(found), Offsets(0, 200))
		Equal(found[0].Headers, []kgo.RecordHeader{{Key: "h", Value: []byte("1")}})
		one.Close()
	}
}

func idempotent() {
	name := made(1, nil)
	produced(name, 0, Records(500, "v"), kgo.ProducerBatchMaxBytes(1024))
	one := reader(name, 0, kgo.NewOffset().AtStart())
	defer one.Close()
	Equal(records(taken(one, 500)), Records(500, "v"))
}

func assign() {
	name := made(2, nil)
	produced(name, 1, Records(20, "v"))
	one := reader(name, 1, kgo.NewOffset().At(15))
	defer one.Close()
	Equal(offsets(taken(one, 5)), Offsets(15, 20))
	two := reader(name, 1, kgo.NewOffset().AtEnd().Relative(-3))
	defer two.Close()
	Equal(offsets(taken(two, 3)), Offsets(17, 20))
}

// twoOfAGroup share the partitions; one leaves, the other has them all: every record once.
func twoOfAGroup(options ...kgo.Opt) {
	name, group := made(4, nil), Fresh("group")
	var clients [2]*kgo.Client
	var assigned [2]atomic.Int64
	for which := range clients {
		count := func(sign int64) func(context.Context, *kgo.Client, map[string][]int32) {
			return func(_ context.Context, _ *kgo.Client, moved map[string][]int32) {
				assigned[which].Add(sign * int64(len(moved[name])))
			}
		}
		clients[which] = member(name, group, append(options,
			kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)))...)
	}
	defer clients[0].Close()
	Until("two partitions each", func() bool { return assigned[0].Load() == 2 && assigned[1].Load() == 2 })
	var expected []Record
	for partition := range int32(4) {
		produced(name, partition, Records(10, "before"))
		expected = append(expected, Records(10, "before")...)
	}
	found := append(records(taken(clients[0], 20)), records(taken(clients[1], 20))...)
	order := func(a, b Record) int { return strings.Compare(a.Value, b.Value) }
	slices.SortFunc(found, order)
	slices.SortFunc(expected, order)
	Equal(found, expected)
	for _, one := range clients {
		Ok(one.CommitUncommittedOffsets(ctx))
	}
	clients[1].Close()
	Until("all partitions", func() bool { return assigned[0].Load() == 4 })
	for partition := range int32(4) {
		produced(name, partition, Records(1, "after"))
	}
	Equal(records(taken(clients[0], 4)), slices.Repeat(Records(1, "after"), 4))
}

func commit() {
	name, group := made(1, nil), Fresh("group")
	produced(name, 0, Records(10, "v"))
	first := member(name, group)
	found := taken(first, 10)
	Ok(first.CommitRecords(ctx, found[3]))
	first.Close()
	second := member(name, group)
	defer second.Close()
	Equal(offsets(taken(second, 6)), Offsets(4, 10))
	admin(func(one *kadm.Client) {
		Equal(Must(one.FetchOffsets(ctx, group))[name][0].At, int64(4))
		Equal(Must(one.Lag(ctx, group))[group].Lag.Total(), int64(6))
	})
}

func seekByTime() {
	name, begin := made(1, nil), time.Now().Add(-100*time.Second).Truncate(time.Millisecond)
	producer := client()
	defer producer.Close()
	send(producer, name, 0, Records(50, "v"), begin)
	admin(func(one *kadm.Client) {
		at := Must(one.ListOffsetsAfterMilli(ctx, begin.UnixMilli()+30, name))[name][0]
		Equal([]int64{at.Offset, at.Timestamp}, []int64{30, begin.UnixMilli() + 30})
		Equal(Must(one.ListEndOffsets(ctx, name))[name][0].Offset, int64(50))
		Equal(Must(one.ListMaxTimestampOffsets(ctx, name))[name][0].Offset, int64(49))
	})
	one := reader(name, 0, kgo.NewOffset().AfterMilli(begin.UnixMilli()+30))
	defer one.Close()
	Equal(taken(one, 20)[0].Timestamp.UnixMilli(), begin.UnixMilli()+30)
}

// transactional reads, writes and commits in one, in the session that the client has for it.
func transactional() {
	source, name, group, id := made(1, nil), made(1, nil), Fresh("group"), Fresh("txn")
	produced(source, 0, Records(5, "v"))
	session := Must(kgo.NewGroupTransactSession(
		kgo.SeedBrokers(address), kgo.TransactionalID(id), kgo.ConsumerGroup(group), kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	))
	taken(session.Client(), 5)
	Ok(session.Begin())
	send(session.Client(), name, 0, Records(10, "committed"), time.Time{})
	Equal(Must(session.End(ctx, kgo.TryCommit)), true)
	admin(func(one *kadm.Client) {
		Until("offsets of the transaction", func() bool { return Must(one.FetchOffsets(ctx, group))[source][0].At == 5 })
	})
	Ok(session.Begin())
	send(session.Client(), name, 0, Records(10, "aborted"), time.Time{})
	Equal(Must(session.End(ctx, kgo.TryAbort)), false)
	// Another of the same name fences the first.
	Ok(session.Begin())
	other := client(kgo.TransactionalID(id))
	defer other.Close()
	_, _, err := other.ProducerID(ctx)
	Ok(err)
	if err := session.Client().ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("fenced")}).FirstErr(); err == nil {
		panic("a fenced producer wrote")
	}
	session.Close()
	one := reader(name, 0, kgo.NewOffset().AtStart(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer one.Close()
	Equal(records(taken(one, 10)), Records(10, "committed"))
}

func readCommitted() {
	name, id := made(1, nil), Fresh("txn")
	producer := client(kgo.TransactionalID(id))
	defer producer.Close()
	for _, tag := range []string{"a", "b", "c", "d", "e"} {
		Ok(producer.BeginTransaction())
		send(producer, name, 0, Records(10, tag), time.Time{})
		if tag != "e" {
			Ok(producer.EndTransaction(ctx, kgo.TransactionEndTry(tag == "b" || tag == "d")))
		}
	}
	for level, expected := range map[kgo.IsolationLevel]int{kgo.ReadCommitted(): 20, kgo.ReadUncommitted(): 50} {
		one := reader(name, 0, kgo.NewOffset().AtStart(), kgo.FetchIsolationLevel(level))
		found := records(taken(one, expected))
		if expected == 20 {
			Equal(found, append(Records(10, "b"), Records(10, "d")...))
		}
		one.Close()
	}
	admin(func(one *kadm.Client) {
		Equal(Must(one.ListCommittedOffsets(ctx, name))[name][0].Offset, int64(44))
		Equal(Must(one.DescribeTransactions(ctx, id))[id].State, "Ongoing")
		Equal(Must(one.ListTransactions(ctx, nil, []string{"Ongoing"}))[id].TxnID, id)
		var topics kadm.TopicsSet
		topics.Add(name, 0)
		Equal(len(Must(one.DescribeProducers(ctx, topics))[name].Partitions[0].ActiveProducers), 1)
	})
	Ok(producer.EndTransaction(ctx, kgo.TryAbort))
}

func deleteRecords() {
	name := made(1, nil)
	produced(name, 0, Records(10, "v"))
	admin(func(one *kadm.Client) {
		var to kadm.Offsets
		to.AddOffset(name, 0, 4, -1)
		Equal(Must(one.DeleteRecords(ctx, to))[name][0].LowWatermark, int64(4))
	})
	one := reader(name, 0, kgo.NewOffset().AtStart())
	defer one.Close()
	Equal(offsets(taken(one, 6)), Offsets(4, 10))
}

func describe() {
	name, group := made(2, map[string]string{"retention.ms": "123456"}), Fresh("group")
	one := member(name, group)
	admin(func(admin *kadm.Client) {
		cluster := Must(admin.BrokerMetadata(ctx))
		if cluster.Cluster == "" || !slices.Contains(cluster.Brokers.NodeIDs(), cluster.Controller) {
			panic(cluster)
		}
		config := Must(Must(admin.DescribeTopicConfigs(ctx, name)).On(name, nil))
		at := slices.IndexFunc(config.Configs, func(each kadm.Config) bool { return each.Key == "retention.ms" })
		Equal(config.Configs[at].MaybeValue(), "123456")
		Until("a stable group", func() bool {
			found := Must(admin.DescribeGroups(ctx, group))[group]
			return found.State == "Stable" && len(found.Members) == 1
		})
		Equal(Must(admin.ListGroups(ctx))[group].State, "Stable")
		one.Close()
		Ok(Must(admin.DeleteGroup(ctx, group)).Err)
	})
}

func alter() {
	name := made(1, nil)
	admin(func(one *kadm.Client) {
		value := kadm.StringPtr("77777")
		Ok(Must(one.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: value}}, name))[0].Err)
		Until("altered", func() bool {
			config := Must(Must(one.DescribeTopicConfigs(ctx, name)).On(name, nil))
			return slices.ContainsFunc(config.Configs, func(each kadm.Config) bool { return each.MaybeValue() == "77777" })
		})
		Ok(Must(one.UpdatePartitions(ctx, 3, name))[name].Err)
		Until("partitions", func() bool { return len(Must(one.ListTopics(ctx, name))[name].Partitions) == 3 })
		Ok(Must(one.DeleteTopic(ctx, name)).Err)
		Until("gone", func() bool { return !Must(one.ListTopics(ctx)).Has(name) })
	})
}

func main() {
	Main([]One{
		{Name: "create", Run: create},
		{Name: "produce", Run: produce},
		{Name: "idempotent", Run: idempotent},
		{Name: "assign", Run: assign},
		{Name: "group-classic", Run: func() { twoOfAGroup(kgo.Balancers(kgo.RangeBalancer())) }},
		{Name: "group-cooperative", Run: func() { twoOfAGroup(kgo.Balancers(kgo.CooperativeStickyBalancer())) }},
		{Name: "group-consumer", Run: func() { twoOfAGroup(kgo.Balancers(kgo.RangeBalancer()), kgo.ServerSideBalancer()) }},
		{Name: "commit", Run: commit},
		{Name: "seek-by-time", Run: seekByTime},
		{Name: "transactional", Run: transactional},
		{Name: "read-committed", Run: readCommitted},
		{Name: "delete-records", Run: deleteRecords},
		{Name: "describe", Run: describe},
		{Name: "alter", Run: alter},
	}, os.Args[2:])
}
