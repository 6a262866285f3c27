package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/schema"
)

// serveDaemon starts an instance as the options say and runs it until a client
// or a signal ends it.
func (p *program) serveDaemon(options []parsedOption) int {
	level := "warn"
	background := false
	pidPath := ""
	for _, o := range options {
		switch o.name {
		case "log-level":
			level = o.arg
		case "daemonize":
			background = true
		case "pidfile":
			pidPath = o.arg
		}
	}
	if background && !inBackground() {
		return p.forkBackground()
	}
	logs, err := newLogging(os.Stderr, level, p.notice)
	if err != nil {
		p.complain("--log-level %s: %s", level, err)
		return 1
	}
	defer logs.close()
	p.logs = logs
	return p.runInstance(options, pidPath)
}

func (p *program) runInstance(options []parsedOption, pidPath string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE)

	p.instance = control.New(control.Config{
		Personality: p.who,
		Stopped:     has(options, "stopped"),
		Log:         p.logs.log,
		Tracer:      p.logs.tracer,
		Stdout:      p.out,
		Notice:      p.notice,
		Complain:    func(line string) { p.complain("%s", line) },
		Background:  inBackground(),
	})
	defer p.instance.Close()
	for _, o := range options {
		p.current = o
		if err := p.apply(o); err != nil {
			p.complainAbout(o, err)
			return 1
		}
	}
	if p.beforeStart != nil {
		if err := p.beforeStart(); err != nil {
			p.complain("%s", err)
			return 1
		}
	}
	if pidPath != "" {
		pid, err := createPidFile(pidPath)
		if err != nil {
			p.complain("%s", err)
			return 1
		}
		defer pid.remove()
	}
	p.serving.Store(true)
	p.instance.Start()
	if err := tellParentReady(); err != nil {
		p.complain("%s", err)
		return 1
	}
	select {
	case <-signals:
		p.instance.Shutdown(schema.ShutdownCauseHostSignal)
	case <-p.instance.Done():
	}
	return 0
}

func has(options []parsedOption, name string) bool {
	return slices.ContainsFunc(options, func(o parsedOption) bool { return o.name == name })
}
