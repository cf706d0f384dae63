package vpn

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// VPN-23, VPN-26: the node's log reaches the manager from the level on that is
// asked for; the token and the values of headers are in no log and no message.
func TestLogIsForwarded(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		var own bytes.Buffer
		tunnel.Logger = slog.New(slog.NewTextHandler(&own, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		log := n.options.Logger
		log.Debug("too small")
		log.With("peer", 7).WithGroup("dns").Warn("slow\nanswer \xff", "err", errors.New("timeout"), slog.Group("q", "name", "x"))
		m := s.nextOfAny().GetLog()
		if m.GetLevel() != wire.Log_WARN || m.GetMessage() != "slow\\nanswer \uFFFD" || strings.Join(m.GetLoggerNames(), ".") != "tsnode.dns" {
			t.Errorf("got %v", m)
		}
		var fields []string
		for _, f := range m.GetFields() {
			fields = append(fields, f.GetName()+"="+f.GetValue())
		}
		if got := strings.Join(fields, " "); got != "peer=7 error=timeout q.name=x" {
			t.Errorf("fields %s", got)
		}
		if n.options.Token != "tskey-secret-token" || n.options.Headers.Get("X-Gate") != "open sesame" {
			t.Errorf("the node was made with %+v", n.options)
		}
		s.send(start(2, testStart()))
		s.started(2, "already started")
		s.send(&wire.ManagerMessage{Rpc: request(3)})
		s.next()
		s.send(stop(4))
		s.stopped(4, "")
		s.eof()
		for _, secret := range []string{"tskey-secret-token", "sesame"} {
			if strings.Contains(own.String(), secret) || bytes.Contains(s.heard, []byte(secret)) {
				t.Errorf("%q is in the log, or in a message:\n%s\n%q", secret, own.String(), s.heard)
			}
		}
		if !bytes.Contains(s.heard, []byte("answer")) || own.Len() == 0 {
			t.Error("there is nothing that was looked at")
		}
	})
}

// VPN-26: a manager that does not read loses the oldest lines, and is told how
// many.
func TestLogIsBounded(t *testing.T) {
	q := newLogQueue()
	log := slog.New(&logHandler{queue: q, level: slog.LevelInfo})
	for i := range logBacklog + 10 {
		log.Info("line", "i", i)
	}
	first, second := q.pop(), q.pop()
	if first.GetLevel() != wire.Log_WARN || !strings.HasPrefix(first.GetMessage(), "10 lines") || second.GetFields()[0].GetValue() != "10" {
		t.Errorf("got %v, then %v", first, second)
	}
	for n := 1; q.pop() != nil; n++ {
		if n == logBacklog {
			t.Fatal("too many lines")
		}
	}
	log.Info(strings.Repeat("long ", maxText))
	if l := q.pop(); len(l.GetMessage()) > maxText {
		t.Errorf("a line of %d bytes", len(l.GetMessage()))
	}
}

// VPN-26: a line of the log is one line on a terminal, too.
func TestLogLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain, \u00fcber": "plain, \u00fcber", "a\nb": `a\nb`, "a\rb": `a\rb`, "\x1b[2Kx\x00": `\x1b[2Kx\x00`, "\u009b2K": `\u009b2K`, "\xff": "\uFFFD",
	} {
		if got := line(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// VPN-23: options that are marshalled, as a whole or in something else, hold no
// secret.
func TestStartOptionsKeepSecrets(t *testing.T) {
	b, err := json.Marshal(testStart())
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, "secret") || strings.Contains(text, "sesame") || !strings.Contains(text, "control.example") {
		t.Errorf("got %s", text)
	}
}
