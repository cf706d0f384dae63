package devnet

import (
	"github.com/seed94491740/tsnode/control"
	"testing"
)

func TestSmoke(t *testing.T) {
	n := New(t, Config{})
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	b := newRawNode(t, n, "b").join(KeyOptions{})
	b.report()
	s.until("peer b", func() bool { return s.peer("b") != nil })
	sb := b.poll()
	if sb.peer("a") == nil {
		t.Error("no a")
	}
	s.until("online", func() bool { p := s.peer("b"); return p.Online != nil && *p.Online })
	_ = control.PathKey
}
