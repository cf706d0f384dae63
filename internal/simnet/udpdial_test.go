package simnet

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// Dial with udp: datagrams of one peer, deadlines, and an end.
func TestDialUDP(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b, other := n.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{}), n.AddHost("other", HostConfig{})
		sb, so := listen(t, b, "udp4", 5000), listen(t, other, "udp4", 5000)
		c, err := a.Dial(t.Context(), "udp", at(b, 5000).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		from := sb.expect("question")
		if c.LocalAddr().String() != from.String() || c.RemoteAddr().String() != at(b, 5000).String() {
			t.Errorf("a is %v for b, %v for itself; b is %v", from, c.LocalAddr(), c.RemoteAddr())
		}
		so.send(from, "not asked")
		time.Sleep(time.Second) // fake time
		sb.send(from, "answer")
		buf := make([]byte, 100)
		if k, err := c.Read(buf); err != nil || string(buf[:k]) != "answer" {
			t.Errorf("read %q, %v", buf[:k], err)
		}

		begin := time.Now()
		c.SetReadDeadline(begin.Add(time.Minute))
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		time.AfterFunc(time.Second, func() { c.Close() })
		c.SetDeadline(time.Time{})
		if _, err := c.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if _, err := c.Write(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write, closed: %v", err)
		}
	})
}
