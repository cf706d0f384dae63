package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed94491740/tsnode/control"
)

// What follows makes the tailnet misbehave, for tests of nodes.

// bindTimeout is how long a server may take to get its port again.
const bindTimeout = 5 * time.Second

// errBlocked is the answer to a node that a test has blocked.
var errBlocked = errors.New("blocked by a test")

// StopControl closes the control server and all its connections. Nodes go on
// with the netmap they have.
func (n *Net) StopControl() { n.control.halt() }

// StartControl starts it again, at the same address with the same key.
func (n *Net) StartControl() error { return startAgain(n.control.start) }

// RestartControl is StopControl and StartControl.
func (n *Net) RestartControl() error {
	n.StopControl()
	return n.StartControl()
}

func startAgain(start func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), bindTimeout)
	defer cancel()
	if err := start(ctx); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return nil
}

// DropStreams ends every map stream; nodes come back by themselves.
func (n *Net) DropStreams() error {
	return n.do(func(t *tailnet, _ time.Time) {
		for _, m := range t.members {
			m.endStreams()
		}
	})
}

// DropStream ends the map stream of one node.
func (n *Net) DropStream(name string) error {
	return n.withNode(name, func(_ *tailnet, m *member, _ time.Time) error {
		m.endStreams()
		return nil
	})
}

// Block refuses a node's map requests with status 503, and ends its stream; with
// false it is served again.
func (n *Net) Block(name string, blocked bool) error {
	return n.withNode(name, func(_ *tailnet, m *member, _ time.Time) error {
		m.blocked = blocked
		if blocked {
			m.endStreams()
		}
		return nil
	})
}

// SetFailure answers all requests for a path, such as control.PathRegister, with
// an HTTP status of 400 and above; 0 ends that. Streams under way go on.
func (n *Net) SetFailure(path string, status int) error {
	if status != 0 && (status < http.StatusBadRequest || status > 999) {
		return fmt.Errorf("devnet: status %d is no failure", status)
	}
	return n.do(func(t *tailnet, _ time.Time) {
		if t.faults.failures[path] = status; status == 0 {
			delete(t.faults.failures, path)
		}
	})
}

// SetDelay holds every map frame back for d; 0 ends that.
func (n *Net) SetDelay(d time.Duration) error {
	return n.do(func(t *tailnet, _ time.Time) { t.faults.delay = d })
}

// SetOnline tells the peers of a node that it is online, or not, whatever is
// true; until its stream begins or ends the next time.
func (n *Net) SetOnline(name string, online bool) error {
	return n.withNode(name, func(t *tailnet, m *member, now time.Time) error {
		l := *m.live
		l.Online, l.LastSeen = online, time.Time{}
		if !online {
			l.LastSeen = now.UTC()
		}
		t.setPresence(m, l)
		return nil
	})
}

// SendMap sends one map frame to a node, on top of what the tailnet tells it.
func (n *Net) SendMap(name string, resp *control.MapResponse) error {
	b, err := json.Marshal(resp)
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return n.SendRaw(name, b)
}

// SendRaw is SendMap for a frame that is sent as it is, and may be anything but
// empty.
func (n *Net) SendRaw(name string, frame []byte) error {
	if len(frame) == 0 {
		return errors.New("devnet: an empty frame cannot be sent")
	}
	return n.withNode(name, func(_ *tailnet, m *member, _ time.Time) error { return m.forge(frame) })
}

// forge queues a frame on the newest stream of m.
func (m *member) forge(frame []byte) error {
	if len(m.streams) == 0 {
		return fmt.Errorf("devnet: %q: %w", m.Name, ErrOffline)
	}
	select {
	case m.streams[len(m.streams)-1].forged <- frame:
		return nil
	default:
		return fmt.Errorf("devnet: node %q does not read its map stream", m.Name)
	}
}
