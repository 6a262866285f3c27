package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args)) }

// run chooses the program by the name it was called under and returns its
// exit status.
func run(args []string) int {
	switch name := filepath.Base(args[0]); name {
	case "qemu-storage-daemon":
		return storageDaemon(args[0], args[1:])
	case "qemu-system-x86_64":
		return systemEmulator(args[0], args[1:])
	}
	if len(args) > 1 {
		switch args[1] {
		case "storage-daemon":
			return storageDaemon(args[0], args[2:])
		case "system":
			return systemEmulator(args[0], args[2:])
		}
	}
	return runCommands(args[1:])
}

func runCommands(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.Execute()
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintln(os.Stderr, "qmpblock:", err)
	return 1
}

// exitStatus ends the program with a status of its own, when everything has
// been said already.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func rootCommand() *cobra.Command {
	root := serveCommand()
	root.AddCommand(
		optionPassing("storage-daemon", "Answer as qemu-storage-daemon does, with its options", storageDaemon),
		optionPassing("system", "Answer as qemu-system-x86_64 does, with its options for disks", systemEmulator),
		ioCommand(),
		jobsCommand(),
		logWritesCommand(),
	)
	root.SilenceErrors = true
	root.SilenceUsage = true
	return root
}

// optionPassing shows a program with QEMU's own option syntax in the list of
// commands; run hands over to it before cobra sees a word of its options.
func optionPassing(name, short string, program func(string, []string) int) *cobra.Command {
	return &cobra.Command{
		Use:                name + " [options]",
		Short:              short,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return exitStatus(program(os.Args[0], args))
		},
	}
}
