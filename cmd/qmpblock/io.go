package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/spf13/cobra"
)

// ioTimeout bounds how long a server may take to greet.
const ioTimeout = 5 * time.Second

// ioCommand is the comfortable face of human-monitor-command's qemu-io: it
// connects to a running server, does I/O on one of its nodes and prints what
// qemu-io would print.
func ioCommand() *cobra.Command {
	var socket string
	var device bool
	c := &cobra.Command{
		Use:   "io --qmp SOCKET NODE COMMAND...",
		Short: "Read and write on a node of a running server, with qemu-io's commands",
		Example: `  qmpblock io --qmp qmp.sock disk0 "write -P 0x5a 4k 64k" "read -P 0x5a 4k 64k"
  qmpblock io --qmp qmp.sock disk0 help`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return runIO(c.OutOrStdout(), socket, device, args[0], args[1:])
		},
	}
	c.Flags().StringVar(&socket, "qmp", defaultSocket, "the server's QMP `socket`")
	c.Flags().BoolVarP(&device, "device", "d", false, "NODE is the id or QOM path of a device")
	return c
}

func runIO(out io.Writer, socket string, device bool, node string, commands []string) error {
	m, err := qmp.NewSocketMonitor("unix", socket, ioTimeout)
	if err != nil {
		return err
	}
	if err := m.Connect(); err != nil {
		return err
	}
	defer m.Disconnect()
	for _, command := range commands {
		text, err := hmp(m, ioLine(device, node, command))
		if err != nil {
			return err
		}
		fmt.Fprint(out, strings.ReplaceAll(text, "\r\n", "\n"))
		if strings.HasPrefix(text, "Error: ") {
			return exitStatus(1)
		}
	}
	return nil
}

// ioLine is the monitor's command line. Its verb is our own: qemu-io's output
// goes to the server's terminal, as the reference's does; this one's comes
// back in the reply.
func ioLine(device bool, node, command string) string {
	flag := ""
	if device {
		flag = "-d "
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(command)
	return fmt.Sprintf(`qmpblock-io %s%s "%s"`, flag, node, quoted)
}

func hmp(m qmp.Monitor, line string) (string, error) {
	request, err := json.Marshal(qmp.Command{
		Execute: "human-monitor-command",
		Args:    map[string]string{"command-line": line},
	})
	if err != nil {
		return "", err
	}
	reply, err := m.Run(request)
	if err != nil {
		return "", err
	}
	var answer struct{ Return string }
	return answer.Return, json.Unmarshal(reply, &answer)
}
