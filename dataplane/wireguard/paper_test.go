package wireguard

import (
	"bytes"
	"testing"
	"time"
)

// A nobody is the other end of a tunnel as written on paper: it does nothing but
// keep what it gets, and the test makes its messages.
type nobody struct{ got [][]byte }

func (n *nobody) take(b []byte) { n.got = append(n.got, b) }
func (*nobody) send(...[]byte)  {}
func (*nobody) close()          {}
func (n *nobody) next() (b []byte) {
	b, n.got = n.got[0], n.got[1:]
	return b
}

func engineNobody(*engineWorld, string) engineNode { return new(nobody) }

// paper runs a test with our node "a" and a nobody, whose key is that of "b".
func paper(t *testing.T, test func(w *engineWorld, a *ourNode, b *nobody)) {
	t.Helper()
	engineTest(t, engineOurs, engineNobody, func(w *engineWorld) {
		test(w, w.node("a").(*ourNode), w.node("b").(*nobody))
	})
}

// A paperHandshake is the nobody's side of one handshake.
type paperHandshake struct {
	id    *identity
	a     [32]byte // our public key
	state symmetric
	eph   [32]byte
	keys  transportKeys
	peer  uint32 // index to send to
}

func newPaper(w *engineWorld, eph byte) *paperHandshake {
	raw := w.keys["b"].Raw()
	return &paperHandshake{id: engineIdentity(w.t, raw[:]), a: w.keys["a"].Public().Raw(), eph: [32]byte(bytes.Repeat([]byte{eph}, 32))}
}

// initiate makes an initiation with an index and a stamp.
func (h *paperHandshake) initiate(w *engineWorld, index uint32, stamp timestamp) []byte {
	shared, err := h.id.shared(&h.a)
	if err != nil {
		w.t.Fatal(err)
	}
	m := initiation{Sender: index}
	if h.state, err = h.id.initiate(&m, &h.a, &shared, engineECDH(w.t, h.eph[:]), &stamp); err != nil {
		w.t.Fatal(err)
	}
	return h.mac(m.append(nil))
}

func (h *paperHandshake) mac(msg []byte) []byte {
	mac1Key := labelled(labelMAC1, &h.a)
	addMACs(msg, &mac1Key, nil)
	return msg
}

// finish takes a response to initiate.
func (h *paperHandshake) finish(w *engineWorld, msg []byte) {
	m, err := parseResponse(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	if h.keys, err = h.id.finish(&h.state, &m, engineECDH(w.t, h.eph[:])); err != nil {
		w.t.Fatal(err)
	}
	h.peer = m.Sender
}

// respond takes an initiation and makes the response.
func (h *paperHandshake) respond(w *engineWorld, msg []byte, index uint32) []byte {
	m, err := parseInitiation(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	static, state, err := h.id.identify(&m)
	if err != nil {
		w.t.Fatal(err)
	}
	shared, err := h.id.shared(&static)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := state.authenticate(&m, &shared); err != nil {
		w.t.Fatal(err)
	}
	r := response{Sender: index, Receiver: m.Sender}
	if h.keys, err = state.respond(&r, &m.Ephemeral, &static, engineECDH(w.t, h.eph[:])); err != nil {
		w.t.Fatal(err)
	}
	h.peer = m.Sender
	return h.mac(r.append(nil))
}

// data makes a transport message.
func (h *paperHandshake) data(counter uint64, plain []byte) []byte {
	d := make([]byte, transportHeader, transportHeader+len(plain)+tagSize)
	d[0] = 4
	for i := range 4 {
		d[4+i] = byte(h.peer >> (8 * i))
	}
	for i := range 8 {
		d[8+i] = byte(counter >> (8 * i))
	}
	return mustAEAD(h.keys.send[:]).Seal(d, append(make([]byte, 4), d[8:16]...), plain, nil)
}

// give passes a datagram to a and waits for what comes of it.
func (n *ourNode) give(b []byte) {
	n.take(b)
	n.w.sleep(engineRTT)
}

func (w *engineWorld) stamp(d time.Duration) timestamp { return stampAt(w.start.Add(d)) }
