package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// How many requests a turn has. Few enough for a quick table, many enough for
// the median of a few turns to be steady.
const (
	trips  = 3000
	resets = 500
	pairs  = 500
)

// work is one line of the table.
type work struct {
	name string
	// do has a fresh daemon do the work and returns a figure.
	do    func(path string) (float64, error)
	unit  func(float64) string
	ratio func(a, b float64) string
}

func works(c config) []work {
	return []work{
		{"query-version round trip", with(roundTrips("query-version")), micros, faster},
		{"query-block round trip", with(roundTrips("query-block")), micros, faster},
		{"block_resize of a raw file", with(resizes), micros, faster},
		{"blockdev-add + blockdev-del of null-co", with(addsAndDels), micros, faster},
		{fmt.Sprintf("adding %d nodes", c.nodes), with(adds(c.nodes)), millis, faster},
		{fmt.Sprintf("query-named-block-nodes of %d nodes", c.nodes), with(lists(c.nodes)), millis, faster},
		{fmt.Sprintf("memory of %d nodes", c.nodes), with(growth(c.nodes)), mebibytes, share},
		{"start to greeting", with(func(i *instance) (float64, error) { return i.took.Seconds(), nil }), millis, faster},
		{"idle memory", with((*instance).resident), mebibytes, share},
		{"query-version against a bare echo server", with(againstEcho), percent, none},
	}
}

// with gives a work its daemon.
func with(do func(*instance) (float64, error)) func(string) (float64, error) {
	return func(path string) (float64, error) {
		i, err := start(path)
		if err != nil {
			return 0, err
		}
		defer i.stop()
		return do(i)
	}
}

// each returns the seconds that one of n requests takes.
func each(n int, request func(k int) error) (float64, error) {
	for k := range n / 10 { // warm
		if err := request(k); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	for k := range n {
		if err := request(k); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds() / float64(n), nil
}

func command(name string) []byte { return []byte("{\"execute\":\"" + name + "\"}\n") }

func roundTrips(name string) func(*instance) (float64, error) {
	request := command(name)
	return func(i *instance) (float64, error) {
		return each(trips, func(int) error {
			_, err := i.do(request)
			return err
		})
	}
}

func resizes(i *instance) (float64, error) {
	if err := os.WriteFile(filepath.Join(i.dir, "a.raw"), nil, 0o644); err != nil {
		return 0, err
	}
	add := `{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"f","filename":"a.raw"}}` + "\n"
	if _, err := i.do([]byte(add)); err != nil {
		return 0, err
	}
	return each(resets, func(k int) error {
		_, err := i.do(fmt.Appendf(nil, "{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"f\",\"size\":%d}}\n", 1<<20+k%2*65536))
		return err
	})
}

func add(k int) []byte {
	return fmt.Appendf(nil, "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"null-co\",\"node-name\":\"n%d\",\"size\":1048576}}\n", k)
}

func addsAndDels(i *instance) (float64, error) {
	remove := []byte("{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"n0\"}}\n")
	return each(pairs, func(int) error {
		if _, err := i.do(add(0)); err != nil {
			return err
		}
		_, err := i.do(remove)
		return err
	})
}

// fill adds nodes and returns the seconds it took.
func fill(i *instance, nodes int) (float64, error) {
	began := time.Now()
	for k := range nodes {
		if _, err := i.do(add(k)); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds(), nil
}

func adds(nodes int) func(*instance) (float64, error) {
	return func(i *instance) (float64, error) { return fill(i, nodes) }
}

func lists(nodes int) func(*instance) (float64, error) {
	request := command("query-named-block-nodes")
	return func(i *instance) (float64, error) {
		if _, err := fill(i, nodes); err != nil {
			return 0, err
		}
		return each(3, func(int) error {
			_, err := i.do(request)
			return err
		})
	}
}

func growth(nodes int) func(*instance) (float64, error) {
	return func(i *instance) (float64, error) {
		before, err := i.resident()
		if err != nil {
			return 0, err
		}
		if _, err := fill(i, nodes); err != nil {
			return 0, err
		}
		after, err := i.resident()
		return after - before, err
	}
}

// againstEcho returns the daemon's rate of round trips as a share of that of a
// server that sends back what it reads.
func againstEcho(i *instance) (float64, error) {
	request := command("query-version")
	ask := func(c *client) func(int) error {
		return func(int) error {
			_, err := c.ask(request)
			return err
		}
	}
	seconds, err := each(trips, ask(i.client))
	if err != nil {
		return 0, err
	}
	server, err := startEcho()
	if err != nil {
		return 0, err
	}
	defer server.stop()
	bare, err := each(trips, ask(server.client))
	return bare / seconds, err
}
