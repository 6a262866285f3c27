package transcript

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// io runs qemu-io commands on a node or device through the monitor: NODE CMD or -d DEVICE
// CMD, several separated by " ; ". Their text is the step's output, whether the
// daemon prints it (as QEMU does) or returns it.
func (p *Player) io(rest string) ([]Expect, error) {
	node, commands, _ := strings.Cut(rest, " ")
	if node == "-d" {
		device, after, _ := strings.Cut(commands, " ")
		node, commands = "-d "+device, after
	}
	printed := len(p.daemon.Output())
	var returned strings.Builder
	for command := range strings.SplitSeq(commands, " ; ") {
		text, err := p.hmp(fmt.Sprintf("qemu-io %s \"%s\"", node, command))
		if err != nil {
			return nil, err
		}
		returned.WriteString(text)
	}
	text := p.daemon.Output()[printed:] + strings.ReplaceAll(returned.String(), "\r\n", "\n")
	return outputLines(p.name(text)), nil
}

// hmp runs a command of the human monitor and returns its text.
func (p *Player) hmp(line string) (string, error) {
	k := p.conns[p.current]
	if k == nil {
		return "", errEnd
	}
	request, err := json.Marshal(map[string]any{
		"execute": "human-monitor-command", "arguments": map[string]any{"command-line": line},
	})
	if err != nil {
		return "", err
	}
	k.send(append(request, '\n'), nil)
	end := time.Now().Add(replyLimit)
	var events []string // of the I/O: the lines below the step are about them
	defer func() { k.putBack(events) }()
	for {
		reply, err := k.next(time.Until(end))
		if err != nil {
			return "", fmt.Errorf("awaited the reply to %q: %w", line, err)
		}
		if isEvent(reply) {
			events = append(events, reply)
			continue
		}
		var answer struct{ Return *string }
		if err := json.Unmarshal([]byte(reply), &answer); err != nil || answer.Return == nil {
			return "", fmt.Errorf("awaited the text of %q\ncame:    %s", line, reply)
		}
		return *answer.Return, nil
	}
}
