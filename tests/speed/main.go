// Speed drives two daemons with the same work in turn and prints a table of
// ratios in Markdown:
//
//	go run ./tests/speed -a /path/to/qemu-storage-daemon -b ./qmpblock
//
// The daemons take turns, round by round, so that what else the machine does
// hits both. Figures are medians over the rounds. A path that ends in
// "qmpblock" is started with its subcommand storage-daemon, any other is taken
// for a qemu-storage-daemon. Give the program itself rather than a wrapper
// script, whose shell would count at the start.
//
// The client is a single thread with blocking system calls, one request at a
// time, so that next to nothing but the daemon and the kernel is measured. The
// reference reads a request byte by byte, one turn of its main loop each, and
// so its round trips grow with the length of the request.
//
// The data path is driven by others' programs: qemu-img (the reference's own
// where QMPBLOCK_REFERENCE names its folder), fio and nbdcopy, the same for
// both daemons. Work whose program is not installed is left out. Its images
// take 4 GiB of the folder for temporary files and should fit into the page
// cache.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

type config struct {
	a, b   string
	rounds int
	nodes  int
	only   string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == echoArgument {
		exit(echo(os.Args[2]))
	}
	var c config
	flag.StringVar(&c.a, "a", "", "the daemon to compare with")
	flag.StringVar(&c.b, "b", "", "the daemon that is compared")
	flag.IntVar(&c.rounds, "rounds", 5, "how often each daemon has its turn")
	flag.IntVar(&c.nodes, "nodes", 5000, "how many nodes the work with many nodes has")
	flag.StringVar(&c.only, "only", "", "only work whose name contains this")
	flag.Parse()
	if c.a == "" || c.b == "" || c.rounds < 1 || c.nodes < 1 {
		flag.Usage()
		os.Exit(2)
	}
	runtime.LockOSThread() // the client is this one thread
	exit(run(os.Stdout, c))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "speed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(out io.Writer, c config) error {
	fmt.Fprintf(out, "%s\n\n", machine())
	fmt.Fprintf(out, "A: %s\nB: %s\n\n", version(c.a), version(c.b))
	fmt.Fprintf(out, "| work | A | B | B against A |\n|---|---:|---:|---:|\n")
	dir, err := os.MkdirTemp("", "speed")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, w := range slices.Concat(works(c), nbdWorks(dir), qcow2Works(dir), jobWorks(dir)) {
		if !strings.Contains(w.name, c.only) {
			continue
		}
		a, b, err := measure(c, w)
		if missing := new(exec.Error); errors.As(err, &missing) {
			fmt.Fprintf(os.Stderr, "speed: left out, for want of %s: %s\n", missing.Name, w.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", w.name, w.unit(a), w.unit(b), w.ratio(a, b))
	}
	return nil
}

// measure lets the daemons take turns at a work and returns their medians.
func measure(c config, w work) (a, b float64, err error) {
	var as, bs []float64
	for range c.rounds {
		for _, turn := range []struct {
			path    string
			figures *[]float64
		}{{c.a, &as}, {c.b, &bs}} {
			figure, err := w.do(turn.path)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", turn.path, err)
			}
			*turn.figures = append(*turn.figures, figure)
		}
	}
	return median(as), median(bs), nil
}

func median(figures []float64) float64 {
	slices.Sort(figures)
	middle := len(figures) / 2
	if len(figures)%2 == 1 {
		return figures[middle]
	}
	return (figures[middle-1] + figures[middle]) / 2
}

// How figures and their ratios are shown.

func micros(seconds float64) string { return fmt.Sprintf("%.1f µs", seconds*1e6) }

func millis(seconds float64) string { return fmt.Sprintf("%.1f ms", seconds*1e3) }

func mebibytes(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }

func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }

func thousands(perSecond float64) string { return fmt.Sprintf("%.1f k/s", perSecond/1e3) }

func mebibytesPerSecond(rate float64) string { return fmt.Sprintf("%.0f MiB/s", rate) }

func faster(a, b float64) string { return fmt.Sprintf("%.1f× as fast", a/b) }

func rate(a, b float64) string { return faster(b, a) }

func share(a, b float64) string { return fmt.Sprintf("%.2f× the memory", b/a) }

func none(float64, float64) string { return "" }
