package jobview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// greetingTimeout bounds how long a server may take to greet. One that serves
// another client on this socket does not.
const greetingTimeout = 5 * time.Second

// client is a connection to a QMP server whose answers and events are read in
// the order in which they come. (go-qemu's client gives them out by separate
// ways, and an answer in the buffer into which it reads the next event.)
type client struct {
	conn  net.Conn
	in    *json.Decoder
	close func() // also called when the context ends
}

// message is an event, or the answer to the command whose name is its id.
type message struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	ID     string          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// dial connects to a UNIX socket and negotiates.
func dial(ctx context.Context, socket string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	hangUp := func() { conn.Close() }
	stop := context.AfterFunc(ctx, hangUp)
	c := &client{conn: conn, in: json.NewDecoder(conn), close: func() { stop(); hangUp() }}
	if err := c.negotiate(); err != nil {
		c.close()
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	return c, nil
}

func (c *client) negotiate() error {
	if err := c.conn.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	var greeting struct {
		QMP json.RawMessage
	}
	err := c.in.Decode(&greeting)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the server does not greet; it may be busy with another client")
	case err != nil:
		return err
	case greeting.QMP == nil:
		return errors.New("this is no QMP server")
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return c.run("qmp_capabilities")
}

// run sends a command and waits for its answer, which is empty.
func (c *client) run(command string) error {
	if err := c.send(command); err != nil {
		return err
	}
	for {
		m, err := c.receive()
		if err != nil || m.ID == command {
			return err
		}
	}
}

// send sends a command. Its name is the id of the answer.
func (c *client) send(command string) error {
	_, err := fmt.Fprintf(c.conn, `{"execute": %q, "id": %[1]q}`+"\r\n", command)
	return err
}

// receive waits for the next message; an answer that is an error is one.
func (c *client) receive() (message, error) {
	var m message
	if err := c.in.Decode(&m); err != nil {
		return message{}, err
	}
	if m.Error != nil {
		return message{}, fmt.Errorf("%s: %s", m.ID, m.Error.Desc)
	}
	return m, nil
}
