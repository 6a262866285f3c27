package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
)

// logWritesCommand reads logs of the blklogwrites driver, which are those of
// the kernel's dm-log-writes.
func logWritesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "log-writes",
		Short: "List and replay a log of writes (blklogwrites, dm-log-writes)",
	}
	c.AddCommand(logListCommand(), logReplayCommand())
	return c
}

func logListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list FILE",
		Short: "Print the entries of a log, one a line",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return dmlog.List(c.OutOrStdout(), args[0])
		},
	}
}

func logReplayCommand() *cobra.Command {
	var until, onto, check string
	c := &cobra.Command{
		Use:   "replay FILE --onto IMAGE",
		Short: "Do to an image what the log says was done to the disk",
		Long: `Replays a log onto an image, to its end or to any point. With --check a
command runs at each flush, when everything before it must be durable: so every
state in which a crash could have left the disk can be tried. The command is run
by the shell, with the image's path in $IMAGE and the number of entries replayed
in $ENTRIES; it must only look.`,
		Example: `  qmpblock log-writes replay log.raw --onto copy.raw --until 42
  qmpblock log-writes replay log.raw --onto copy.raw --check 'fsck.ext4 -fn "$IMAGE"'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return replayLog(c.OutOrStdout(), args[0], onto, until, check)
		},
	}
	c.Flags().StringVar(&until, "until", "", "stop after `N` entries, or at the mark of that name")
	c.Flags().StringVar(&onto, "onto", "", "the `image` to replay onto; it is made if there is none")
	c.Flags().StringVar(&check, "check", "", "run this `command` at each flush; stop when it fails")
	if err := c.MarkFlagRequired("onto"); err != nil {
		panic(err)
	}
	return c
}

func replayLog(out io.Writer, log, onto, until, check string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var (
		done dmlog.Progress
		err  error
	)
	if check == "" {
		done, err = dmlog.Replay(ctx, log, onto, until)
	} else {
		done, err = dmlog.ReplayChecking(ctx, log, onto, until, check, out)
	}
	fmt.Fprintf(out, "%d entries replayed, %d checks\n", done.Entries, done.Checks)
	var failed *dmlog.CheckError
	if errors.As(err, &failed) {
		return fmt.Errorf("%w; --until %d leads there again", err, failed.Entries)
	}
	return err
}
