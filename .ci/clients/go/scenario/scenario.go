// Package scenario is what the scenarios of the Go clients share: how one is run and told, names, records and patience.
package scenario

import (
	"crypto/rand"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Patience is how long anything may take.
const Patience = 30 * time.Second

// Codecs of a producer.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// One is a named scenario; it panics if it fails.
type One struct {
	Name string
	Run  func()
}

// Fresh is a name that no other run knows.
func Fresh(name string) string {
	return fmt.Sprintf("%s-%s", name, strings.ToLower(rand.Text()[:8]))
}

// Record is a key and a value.
type Record struct{ Key, Value string }

// Records are so many, some large enough that every codec has something to do.
func Records(count int, tag string) []Record {
	var all []Record
	for at := range count {
		all = append(all, Record{fmt.Sprint("k", at), fmt.Sprint(tag, at, "-", strings.Repeat("x", at%7*50))})
	}
	return all
}

// Offsets from (included) to (excluded).
func Offsets(from, to int64) []int64 {
	var all []int64
	for ; from < to; from++ {
		all = append(all, from)
	}
	return all
}

// Ok fails if there is an error.
func Ok(err error) {
	if err != nil {
		panic(err)
	}
}

// Must is the value of a call that has no error.
func Must[T any](value T, err error) T {
	Ok(err)
	return value
}

// Equal fails if the two differ.
func Equal(found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Sprintf("found %.200v, expected %.200v", found, expected))
	}
}

// Until asks until it is so, or fails.
func Until(what string, holds func() bool) {
	for ends := time.Now().Add(Patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(ends) {
			panic("not within " + Patience.String() + ": " + what)
		}
	}
}

// Main runs all, those of a short form (`short`), or those that are named, and ends the process with 1 if one failed.
func Main(all []One, chosen []string) {
	failed := 0
	for _, each := range all {
		if len(chosen) > 0 && chosen[0] != "short" && !slices.Contains(chosen, each.Name) {
			continue
		}
		began := time.Now()
		if why := attempt(each); why != "" {
			failed = 1
			fmt.Printf("failed %s: %.300s\n", each.Name, strings.Join(strings.Fields(why), " "))
		} else {
			fmt.Printf("ok %s\n", each.Name)
		}
		fmt.Fprintf(os.Stderr, "%s: %.1f s\n", each.Name, time.Since(began).Seconds())
	}
	os.Exit(failed)
}

func attempt(one One) (why string) {
	done := make(chan string, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				fmt.Fprintf(os.Stderr, "%v\n%s", cause, debug.Stack())
				done <- fmt.Sprint(cause)
			}
		}()
		one.Run()
		done <- ""
	}()
	select {
	case why = <-done:
		return why
	case <-time.After(4 * Patience):
		return "not within " + (4 * Patience).String()
	}
}
