package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/qmpblock/qmpblock/cmd/qmpblock/internal/jobview"
)

// jobsCommand shows what a server works on behind its replies.
func jobsCommand() *cobra.Command {
	var watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "jobs [--watch] SOCKET",
		Short: "Show the jobs of a running server",
		Long: `Prints a table of the jobs of a server, ours or QEMU, with a free QMP monitor on
SOCKET. With --watch it shows each job until it is over, also those that begin
later: on a terminal a bar, with the rate and the time left, else a line for each
change, of the words ID TYPE STATUS DONE/TOTAL and, at the end, "completed",
"cancelled" or "failed: " and why.

Watching ends with the server, or by SIGINT or SIGTERM. The exit status is 0 then,
but 1 if the server went away with jobs unfinished.`,
		Example: `  qmpblock jobs qmp.sock
  qmpblock jobs --watch qmp.sock | grep --line-buffered ' concluded '`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if watch {
				return watchJobs(ctx, c.OutOrStdout(), args[0], every)
			}
			return listJobs(ctx, c.OutOrStdout(), args[0])
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "follow the jobs until the server ends")
	c.Flags().DurationVar(&every, "every", time.Second, "how often to ask for the progress")
	return c
}

func listJobs(ctx context.Context, out io.Writer, socket string) error {
	jobs, err := jobview.List(ctx, socket)
	if err != nil {
		return err
	}
	return jobview.Table(out, jobs)
}

func watchJobs(ctx context.Context, out io.Writer, socket string, every time.Duration) error {
	if every <= 0 {
		return errors.New("--every must be more than nothing")
	}
	view := jobsView(out)
	err := jobview.Watch(ctx, socket, view, every)
	return errors.Join(err, view.Close())
}

func jobsView(out io.Writer) jobview.View {
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return jobview.NewBars(f)
	}
	return jobview.NewLines(out)
}
