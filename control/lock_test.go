package control

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A lockServer answers the requests of tailnet lock with what the reference
// implementation has made (tka/testdata).
type lockServer struct {
	Genesis []byte
	Updates []struct {
		Update   []byte
		Accepted bool
		Head     string
	}
	Signatures []struct {
		Node      key.NodePublic
		Signature []byte
		Valid     bool
	}
	Secret string

	mu       sync.Mutex
	disabled string // the secret that is told
	asked    []string
	genesis  []byte // instead of Genesis; nil: none
}

func newLockServer(t *testing.T) *lockServer {
	t.Helper()
	b, err := os.ReadFile("../tka/testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Authorities []*lockServer }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all.Authorities[0]
}

func (s *lockServer) head() string { return s.Updates[len(s.Updates)-1].Head }

// valid counts the signatures that are.
func (s *lockServer) valid() (n int) {
	for _, sig := range s.Signatures {
		if sig.Valid {
			n++
		}
	}
	return n
}

// peers returns a node for each signature; one more has none, and one needs none.
func (s *lockServer) peers() (all []*Node) {
	for i, sig := range s.Signatures {
		all = append(all, &Node{ID: netmap.NodeID(100 + i), Key: sig.Node, KeySignature: sig.Signature})
	}
	return append(all,
		&Node{ID: 200, Key: key.NewNode().Public()},
		&Node{ID: 201, Key: key.NewNode().Public(), UnsignedPeerAPIOnly: true})
}

func (s *lockServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	var answer any
	switch r.URL.Path {
	case PathLockBootstrap:
		resp := LockBootstrapResponse{GenesisAUM: s.Genesis, DisablementSecret: []byte(s.disabled)}
		if s.genesis != nil {
			resp.GenesisAUM = s.genesis
		}
		answer = resp
	case PathLockOffer:
		resp := LockOfferResponse{Head: s.head()}
		for _, u := range s.Updates {
			if u.Accepted {
				resp.MissingAUMs = append(resp.MissingAUMs, u.Update)
			}
		}
		answer = resp
	case PathLockSend:
		var req LockSendRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		answer = LockSendResponse{Head: req.Head}
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// memoryLock keeps tailnet lock in memory.
type memoryLock struct {
	mu      sync.Mutex
	updates [][]byte
}

func (m *memoryLock) LoadLock(context.Context) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.updates, nil
}

func (m *memoryLock) SaveLock(_ context.Context, updates [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updates = updates
	return nil
}

// startLocked starts a client whose server has the lock on.
func startLocked(t *testing.T, s *lockServer, store LockStore) (*testClient, *testPoll) {
	t.Helper()
	tc := start(t, func(c *Config, tc *testClient) {
		c.Lock, c.LockKey = store, key.NewLock()
		tc.testServer.lock = s.serve
	})
	p := tc.running()
	p.send(&MapResponse{TKAInfo: &TKAInfo{Head: s.head()}, Peers: s.peers()})
	synctest.Wait()
	return tc, p
}

// Peers with a valid signature, and those exempt, are in the netmap; the others
// are counted. Which ones, the reference implementation has said (SVC-145,
// SVC-146).
func TestLockAdmitsSignedPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := newLockServer(t), new(memoryLock)
		tc, _ := startLocked(t, s, store)
		m := tc.Netmap.Get()
		if m.Lock == nil || m.Lock.Head != s.head() || m.Lock.Signed {
			t.Fatalf("lock = %+v, want it verified at %s, this node not signed; asked %q", m.Lock, s.head(), s.asked)
		}
		if n := len(m.Peers); n != s.valid()+1 || m.Lock.LeftOut != len(s.Signatures)+2-n {
			t.Errorf("%d peers and %d left out, want %d that are signed and one that is exempt", n, m.Lock.LeftOut, s.valid())
		}
		for _, p := range m.Peers {
			i := slices.IndexFunc(s.Signatures, func(sig struct {
				Node      key.NodePublic
				Signature []byte
				Valid     bool
			}) bool {
				return sig.Node == p.Key
			})
			if !p.UnsignedPeerAPIOnly && (i < 0 || !s.Signatures[i].Valid) {
				t.Errorf("peer %d has no valid signature", p.ID)
			}
		}
		want := []string{"GET " + PathLockBootstrap, "GET " + PathLockOffer, "GET " + PathLockSend}
		if !slices.Equal(s.asked, want) || store.updates == nil {
			t.Errorf("asked %q, want %q; kept: %v", s.asked, want, store.updates != nil)
		}
	})
}

// A node that starts again goes by what it has kept, not by another beginning
// that the server has (SVC-146).
func TestLockIsKept(t *testing.T) {
	s, store := newLockServer(t), new(memoryLock)
	synctest.Test(t, func(t *testing.T) { startLocked(t, s, store) })
	s.asked, s.genesis = nil, []byte("another")
	synctest.Test(t, func(t *testing.T) {
		tc, _ := startLocked(t, s, store)
		if m := tc.Netmap.Get(); m.Lock == nil || m.Lock.Head != s.head() || len(m.Peers) != s.valid()+1 {
			t.Errorf("lock = %+v with %d peers, want it as before; asked %q", m.Lock, len(m.Peers), s.asked)
		}
	})
}

// Only the secret turns the lock off, not the server's word (SVC-149, CTL-41).
func TestLockIsTurnedOffByTheSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := newLockServer(t), new(memoryLock)
		tc, p := startLocked(t, s, store)
		s.mu.Lock()
		s.disabled = "wrong"
		s.mu.Unlock()
		p.send(&MapResponse{TKAInfo: &TKAInfo{Disabled: true}})
		time.Sleep(time.Second) // fake time; few attempts, each costs a processor much
		if m := tc.Netmap.Get(); m.Lock == nil || tc.Status.Get().Lock == nil {
			t.Error("a wrong secret has turned it off, or the status does not say so")
		}
		s.mu.Lock()
		s.disabled = s.Secret
		s.mu.Unlock()
		time.Sleep(time.Second) // fake time
		m := tc.Netmap.Get()
		if m.LockEnabled || m.Lock != nil || len(m.Peers) != len(s.peers()) || store.updates != nil || tc.Status.Get().Lock != nil {
			t.Errorf("lock = %v, %+v with %d peers, status %v; want it off", m.LockEnabled, m.Lock, len(m.Peers), tc.Status.Get().Lock)
		}
	})
}

// A server whose lock cannot be verified gets nobody into the netmap's reach, and
// the status says why; it is asked again (SVC-144).
func TestLockThatCannotBeVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockServer(t)
		s.genesis = []byte("no update")
		tc, _ := startLocked(t, s, new(memoryLock))
		m := tc.Netmap.Get()
		if m.Lock != nil || !m.Barred(m.Peers[0]) || tc.Status.Get().Lock == nil {
			t.Errorf("lock = %+v, status %v; want everybody barred", m.Lock, tc.Status.Get().Lock)
		}
		s.mu.Lock()
		s.genesis = nil
		s.mu.Unlock()
		time.Sleep(time.Minute) // fake time
		if m := tc.Netmap.Get(); m.Lock == nil || tc.Status.Get().Lock != nil {
			t.Errorf("lock = %+v, status %v; want it verified in the end", m.Lock, tc.Status.Get().Lock)
		}
	})
}

// A renewed node key is signed by our lock key when the server sends the signature
// of the old one (SVC-148).
func TestRegistrationRenewsSignature(t *testing.T) {
	s := newLockServer(t)
	r := newRegistration(&Credentials{Node: key.NewNode()}, joinKey{}, true)
	r.lock = key.NewLock()
	first := r.request(new(Hostinfo))
	if first.NLKey != r.lock.Public() || first.NodeKeySignature != nil {
		t.Errorf("request = %+v, want our lock key and no signature (SVC-143)", first)
	}
	old := &RegisterResponse{NodeKeySignature: s.Signatures[0].Signature}
	if next := r.next(old, nil); next.done || next.err != nil || next.wait != 0 {
		t.Errorf("step = %+v, want to ask again at once", next)
	}
	second := r.request(new(Hostinfo))
	if len(second.NodeKeySignature) <= len(s.Signatures[0].Signature) || second.NodeKey != first.NodeKey {
		t.Error("the second request has no signature of the same key")
	}
	if next := r.next(old, nil); next.done || next.err == nil {
		t.Errorf("step = %+v, want no end of it to be an error", next)
	}
}
