package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// The line that says what the node waits for stays below all others on a terminal,
// and is nowhere else.
func TestConsole(t *testing.T) {
	for _, test := range []struct {
		terminal bool
		want     string
	}{
		{true, eraseLine + "waiting" + eraseLine + "one\nwaiting" + eraseLine + "two\n"},
		{false, "one\ntwo\n"},
	} {
		var out bytes.Buffer
		c := &console{out: &out, terminal: test.terminal, columns: func() int { return 80 }}
		c.wait("waiting")
		c.wait("waiting")
		fmt.Fprintln(c, "one")
		c.wait("")
		fmt.Fprintln(c, "two")
		if out.String() != test.want {
			t.Errorf("got %q, want %q", &out, test.want)
		}
	}
}

// The line that waits is cut to one line of the terminal: no more can be erased.
func TestConsoleFits(t *testing.T) {
	var out bytes.Buffer
	wide := 10
	c := &console{out: &out, terminal: true, columns: func() int { return wide }}
	c.wait("tsnode: a relé, or more")
	wide = 0 // a terminal that does not know
	c.wait("tsnode: a relay")
	if want := eraseLine + "tsnode: a" + eraseLine + "tsnode: a relay"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

// A login URL is drawn for the camera of a phone on a terminal, and nowhere else:
// neither in a file nor in what a bug report shows.
func TestLoginIsDrawnOnTerminals(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		f := newForeground(&configuration{}, settings.Defaults(), stdio{err: &out})
		f.console.terminal = terminal
		f.tellEvent(node.NeedsLogin{URL: "https://example.org/login/x"})
		if got := strings.Contains(out.String(), "█"); got != terminal {
			t.Errorf("terminal %v: drawn %v", terminal, got)
		}
		if kept := strings.Join(f.ring.last(), ""); strings.Contains(kept, "█") || !strings.Contains(kept, "example.org") {
			t.Errorf("terminal %v: kept %q", terminal, kept)
		}
	}
}

// Of many forwards the first are told one by one, those that listen; the rest is
// counted.
func TestForwardsAreTold(t *testing.T) {
	var out bytes.Buffer
	f := newForeground(&configuration{}, settings.Defaults(), stdio{err: &out})
	all := make([]proxy.Status, maxTold+4)
	for i := range all {
		all[i] = proxy.Status{Listen: "127.0.0.1:1", Target: fmt.Sprint("web:", i)}
	}
	all[maxTold].Listen = ""
	f.tellForwards(all)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != maxTold+1 || lines[maxTold] != "tsnode: and 3 more forwards" {
		t.Errorf("%q", lines)
	}
}

// The progress line says what a start waits for, once that takes longer than usual,
// and is gone when the node can be reached.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var said []string
		p := &progress{
			tell: func(text string) { said = append(said, text) },
			status: func() *node.Status {
				switch after := time.Since(began); {
				case after < time.Second:
					return &node.Status{State: node.StateStarting}
				case after < 2*time.Second:
					return &node.Status{State: node.StateNeedsApproval}
				}
				return &node.Status{State: node.StateRunning, Relayed: time.Since(began) > 3*time.Second}
			},
		}
		if err := p.Serve(t.Context()); err != nil {
			t.Error(err)
		}
		if time.Since(began) > 4*time.Second || len(said) == 0 || said[len(said)-1] != "" {
			t.Fatalf("after %v: %q", time.Since(began), said)
		}
		if said[0] != "tsnode: waiting for the control server (0s)" || strings.Count(strings.Join(said, "\n"), "approval") == 0 {
			t.Errorf("%q", said)
		}
	})
}

func TestWaitsFor(t *testing.T) {
	for _, test := range []struct {
		status node.Status
		want   string
	}{
		{node.Status{State: node.StateStarting}, "the control server"},
		{node.Status{State: node.StateStarting, ControlError: "x"}, "the control server, which does not answer"},
		{node.Status{State: node.StateNeedsLogin, AuthURL: "https://x", ControlError: "x"}, "a login in the browser"},
		{node.Status{State: node.StateNeedsLogin, ControlError: "logged out"}, "a login: run 'tsnode login'"},
		{node.Status{State: node.StateNeedsApproval}, "the approval of an administrator"},
		{node.Status{State: node.StateRunning}, "a relay"},
		{node.Status{State: node.StateRunning, Relayed: true}, ""},
		{node.Status{State: node.StateRunning, DirectPaths: 1}, ""},
		{node.Status{State: node.StateStarting, DirectPaths: 1}, "the control server"},
	} {
		if got := waitsFor(&test.status); got != test.want {
			t.Errorf("%+v: %q, want %q", test.status, got, test.want)
		}
	}
}

// The ring keeps the last lines, in order, and cuts long ones.
func TestLogRing(t *testing.T) {
	var r logRing
	for i := range maxRingLines + 3 {
		fmt.Fprintf(&r, "line %d\n", i)
	}
	last := r.last()
	if len(last) != maxRingLines || last[0] != "line 3\n" || last[maxRingLines-1] != fmt.Sprintf("line %d\n", maxRingLines+2) {
		t.Errorf("%d lines from %q to %q", len(last), last[0], last[len(last)-1])
	}
	fmt.Fprint(&r, strings.Repeat("x", 2*maxRingLine))
	if last := r.last(); len(last[maxRingLines-1]) != maxRingLine {
		t.Errorf("a line of %d bytes", len(last[maxRingLines-1]))
	}
}

func TestWatchdogPeriod(t *testing.T) {
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{{"30000000", "", 15 * time.Second}, {"30000000", "1", 0}, {"", "", 0}, {"-5", "", 0}, {"x", "", 0}} {
		if got := watchdogPeriod(test.usec, test.pid); got != test.want {
			t.Errorf("%q %q: %v, want %v", test.usec, test.pid, got, test.want)
		}
	}
}

// With JSON each line for people has its level: an alarm that goes by levels notices
// what an operator must act on, and nothing else.
func TestLinesHaveLevels(t *testing.T) {
	var out bytes.Buffer
	s := settings.Defaults()
	s.LogFormat = settings.JSON
	f := newForeground(&configuration{}, s, stdio{err: &out})
	f.node = new(node.Node)
	for _, test := range []struct {
		name string
		tell func()
		want string
	}{
		{"forward", func() { f.tellForwards([]proxy.Status{{Listen: "127.0.0.1:1", Target: "web:1"}}) }, "INFO forwarding 127.0.0.1:1 to web:1"},
		{"warning", func() { f.warn(&settings.Settings{Warnings: []string{"look"}}) }, "WARN look"},
		{"login", func() { f.tellEvent(node.NeedsLogin{URL: "https://x"}) }, "WARN To join the tailnet, visit: https://x"},
		{"approval", func() { f.tellEvent(node.NeedsApproval{}) }, "WARN waiting for an administrator"},
		{"expiring", func() { f.tellEvent(node.KeyExpiring{}) }, "WARN the node key expires"},
		{"expired", func() { f.tellEvent(node.KeyExpired{}) }, "ERROR the node key has expired"},
		{"renewed", func() { f.tellEvent(node.KeyRenewed{}) }, "INFO the node key has been renewed"},
		{"locked out", func() { f.tellEvent(node.TailnetLocked{Verified: true, Sign: "sign"}) }, "WARN tailnet lock is on and this node is not signed"},
		{"locked", func() { f.tellEvent(node.TailnetLocked{Verified: true}) }, "INFO tailnet lock is on; this node"},
		{"refused key", func() { f.tellEvent(node.ControlProblem{Err: node.ErrBadAuthKey}) }, "ERROR " + node.ErrBadAuthKey.Error()},
		{"no control", func() { f.tellEvent(node.ControlProblem{Err: node.ErrControlUnreachable}) }, "WARN " + node.ErrControlUnreachable.Error()},
	} {
		out.Reset()
		test.tell()
		var record struct{ Level, Msg string }
		if err := json.Unmarshal(out.Bytes(), &record); err != nil || !strings.HasPrefix(record.Level+" "+record.Msg, test.want) {
			t.Errorf("%s: %s, %v, want %s", test.name, &out, err, test.want)
		}
	}
}
