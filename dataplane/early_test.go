package dataplane

import (
	"testing"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

func initiationFrom(i int) (transport.Endpoint, []byte) {
	msg := make([]byte, initiationSize)
	msg[0], msg[10] = typeInitiation, byte(i)
	return transport.Endpoint{Region: 1, Key: key.NodePublicFromRaw([key.Size]byte{byte(i), 1})}, msg
}

func TestEarlyKeepsTheNewestOfEachSender(t *testing.T) {
	var e early
	from, msg := initiationFrom(1)
	other, otherMsg := initiationFrom(2)
	for _, m := range [][]byte{msg[:147], append(msg, 0), make([]byte, initiationSize)} {
		if e.keep(from, m, 0) {
			t.Errorf("a message of %d bytes and type %d was kept", len(m), m[0])
		}
	}
	e.keep(from, msg, 0)
	msg[20] = 99 // e must hold a copy; and this is a newer one
	e.keep(from, msg, 1)
	e.keep(other, otherMsg, 1)
	got := e.take(func(k key.NodePublic) bool { return k == from.Key }, 2)
	if len(got) != 1 || got[0].msg[20] != 99 || got[0].from != from {
		t.Errorf("took %v", got)
	}
	if again := e.take(func(k key.NodePublic) bool { return k == from.Key }, 2); len(again) != 0 {
		t.Error("an initiation was taken twice")
	}
	if len(e.kept) != 1 || e.kept[0].from != other {
		t.Errorf("%d are left", len(e.kept))
	}
}

func TestEarlyIsBoundedInNumberAndTime(t *testing.T) {
	var e early
	for i := range 3 * maxEarly {
		from, msg := initiationFrom(i)
		e.keep(from, msg, wireguard.Tick(i))
	}
	if len(e.kept) != maxEarly || e.kept[0].at != 2*maxEarly {
		t.Errorf("%d are kept, the oldest of %d", len(e.kept), e.kept[0].at)
	}
	all := func(key.NodePublic) bool { return true }
	if got := e.take(all, wireguard.Tick(earlyFor)+3*maxEarly); len(got) != 0 || len(e.kept) != 0 {
		t.Errorf("%d old ones were taken, %d are kept", len(got), len(e.kept))
	}
}
