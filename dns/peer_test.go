package dns

import (
	"errors"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// SVC-88: peers get what this node's servers say, and nothing of the netmap, nor
// what the control server withholds from them.
func TestSVC88QueryOfPeer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "198.51.100.1", w.says(dnsmessage.RCodeSuccess, "203.0.113.7"), w.says(dnsmessage.RCodeSuccess, "203.0.113.8"))
		w.use("198.51.100.1")
		w.netmap.DNS.ExitNodeFilteredSet = []string{".below.example", "Exact.example.", "", ".", "..", ".b\\"}
		w.cell.Store(w.netmap)
		for _, tt := range []struct{ name, want string }{
			{"www.example", "Success 203.0.113.7/5"},
			{"both.tail.ts.net", "Refused"},
			{"nobody.tail.ts.net", "Refused"},
			{"extra.corp.example", "Refused"},
			{"x.onion", "Refused"},
			{"exact.example", "Refused"},
			{"EXACT.EXAMPLE", "Refused"},
			{"x.exact.example", "Success 203.0.113.7/5"},
			{"xexact.example", "Success 203.0.113.7/5"},
			{"x.below.example", "Refused"},
			{"a.x.Below.example", "Refused"},
			{"below.example", "Success 203.0.113.7/5"},
			{"xbelow.example", "Success 203.0.113.7/5"},
		} {
			msg, err := w.resolver.QueryOfPeer(t.Context(), message(t, tt.name, a))
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			} else if got := text(t, msg); got != tt.want || msg[1] != 77 {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
	})
}

// A message without a question is answered with FORMERR; what is no question, with
// nothing; and so is what comes when too many are under way.
func TestQueryOfPeerErrors(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		question := message(t, "www.example", a)
		if msg, err := w.resolver.QueryOfPeer(t.Context(), question[:headerBytes]); err != nil || rcode(msg) != dnsmessage.RCodeFormatError {
			t.Errorf("no question: %x, %v", msg, err)
		}
		for _, bad := range [][]byte{nil, question[:5], replyTo(t, question, dnsmessage.RCodeSuccess)} {
			if msg, err := w.resolver.QueryOfPeer(t.Context(), bad); err == nil {
				t.Errorf("%x: answered with %x", bad, msg)
			}
		}
		for range maxUnderway {
			w.resolver.acquire()
		}
		if _, err := w.resolver.QueryOfPeer(t.Context(), question); !errors.Is(err, ErrBusy) {
			t.Errorf("too many: %v", err)
		}
		for range maxUnderway {
			w.resolver.release()
		}
	})
}
