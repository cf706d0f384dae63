package dns

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// Bounds of what is under way (SVC-74).
const (
	queryTimeout = 10 * time.Second // of one question, until SERVFAIL
	maxUnderway  = 256              // forwarded questions at a time
)

// Errors of a Resolver; compare with errors.Is.
var (
	// ErrBusy says that as many questions are under way as there may be.
	ErrBusy = errors.New("dns: too many questions at a time; ask again")

	// ErrNotFound says that whoever is responsible for a name says that it does
	// not exist, or has no address of the family.
	ErrNotFound = errors.New("dns: no such name")
)

// A Config is what a Resolver needs of its surroundings.
type Config struct {
	Netmap      *actor.Cell[*netmap.Netmap]
	Preferences *actor.Cell[Preferences]
	Network     host.Network // asks upstream servers that are not in the tunnel

	// HostBarred reports whether the host's servers must not be asked now for what
	// those of the tailnet do not answer; nil: never.
	HostBarred func() bool

	// InTunnel reports whether packets to an address go through the tunnel, and
	// Tunnel connects there; network is udp or tcp (SVC-76).
	InTunnel func(netip.Addr) bool
	Tunnel   func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)

	// ListenUDP and ListenTCP open the sockets of the service inside the stack
	// (SVC-82), on addresses of Addressed: the newest Netmap whose addresses the stack
	// has. nil: that is Netmap.
	Addressed *actor.Cell[*netmap.Netmap]
	ListenUDP func(netip.AddrPort) (net.PacketConn, error)
	ListenTCP func(netip.AddrPort) (net.Listener, error)

	// Start has Serve run. It is called once, when the service is first wanted, and
	// does not wait.
	Start func()

	Logger *slog.Logger
}

// A Resolver answers questions by the netmap in force, and asks others for the
// rest. It may be used from any goroutine, whether or not Serve runs; Serve is
// for questions that come in packets.
type Resolver struct {
	config Config
	table  atomic.Pointer[Table] // of the netmap and preferences last seen
	slots  chan struct{}         // one for each question under way; bounded by maxUnderway
	http   *http.Transport
	count  counters

	wanted  sync.Once // calls Start
	service actor.Cell[service]

	ended   context.Context // ends with Close
	end     context.CancelFunc
	closing sync.Once
}

// counters are those of Stats.
type counters struct {
	queries, local, forwarded, failed, busy, malformed, foreign, mismatched, udp, tcp, http atomic.Uint64
}

// Stats are counters since the resolver was made.
type Stats struct {
	Queries    uint64 // questions of clients
	Local      uint64 // answered without asking anybody
	Forwarded  uint64 // that others were asked
	Failed     uint64 // of those, ended in SERVFAIL here
	Busy       uint64 // dropped: too many at a time
	Malformed  uint64 // messages that are no question
	Foreign    uint64 // questions of others than this node, dropped (SVC-82)
	Mismatched uint64 // messages of upstream servers that answer nothing that was asked
	UDP        uint64 // times that an upstream server was asked over UDP
	TCP        uint64 // over TCP
	HTTP       uint64 // over HTTP and HTTPS
}

// New returns a resolver. It starts nothing. Close must be called in the end.
func New(c Config) *Resolver {
	c.Addressed = cmp.Or(c.Addressed, c.Netmap)
	r := &Resolver{config: c, slots: make(chan struct{}, maxUnderway)}
	r.ended, r.end = context.WithCancel(context.Background())
	r.http = r.newTransport()
	return r
}

// String names the actor.
func (*Resolver) String() string { return "dns.Resolver" }

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	c := &r.count
	return Stats{
		Queries: c.queries.Load(), Local: c.local.Load(), Forwarded: c.forwarded.Load(), Failed: c.failed.Load(),
		Busy: c.busy.Load(), Malformed: c.malformed.Load(), Foreign: c.foreign.Load(), Mismatched: c.mismatched.Load(),
		UDP: c.udp.Load(), TCP: c.tcp.Load(), HTTP: c.http.Load(),
	}
}

// Close ends the questions under way, and waits for them. Later ones that
// somebody else would have to answer fail. It may be called more than once.
func (r *Resolver) Close() {
	r.closing.Do(func() {
		r.end()
		for range cap(r.slots) {
			r.slots <- struct{}{} // and keep it
		}
		r.http.CloseIdleConnections()
	})
}

// Table returns the table of the netmap in force. It is made when it is first
// asked for: most netmaps come and go without a question.
func (r *Resolver) Table() *Table {
	nm, prefs := r.config.Netmap.Get(), r.config.Preferences.Get()
	t := r.table.Load()
	if t != nil && t.from == nm && t.prefs == prefs {
		return t
	}
	next := Compile(nm, prefs, t)
	r.table.Store(next)
	return next
}

// Query answers one message of a client. network is udp or tcp, and says how long
// the answer may be. The error is ErrBusy, or says that the message is one that
// nobody answers.
func (r *Resolver) Query(ctx context.Context, network string, message []byte) ([]byte, error) {
	return r.respond(ctx, message, network == "udp", r.forward)
}

// respond is Query with what is done about a question that is not ours.
func (r *Resolver) respond(ctx context.Context, message []byte, overUDP bool, elsewhere func(context.Context, *query, []Upstream) []byte) ([]byte, error) {
	q, d, response, err := r.decide(message, overUDP)
	if err != nil || response != nil {
		return response, err
	}
	if !r.acquire() {
		return nil, ErrBusy
	}
	defer r.release()
	return elsewhere(ctx, q, d.Upstreams), nil
}

// decide answers a message if nobody needs to be asked; else it returns the
// question and whom to ask.
func (r *Resolver) decide(message []byte, overUDP bool) (q *query, d Decision, response []byte, err error) {
	r.count.queries.Add(1)
	q, err = parseQuery(message, overUDP)
	switch {
	case errors.Is(err, errNotQuery):
		r.count.malformed.Add(1)
		return nil, d, nil, err
	case err != nil:
		r.count.malformed.Add(1)
		return nil, d, q.fail(dnsmessage.RCodeFormatError), nil
	}
	if d = r.Table().Decide(q.name, q.question.Type); d.Verdict == Forward {
		return q, d, nil, nil
	}
	r.count.local.Add(1)
	return q, d, q.fit(q.answer(&d, uint32(time.Now().Unix()))), nil
}

// acquire takes a slot for a question, if there is one.
func (r *Resolver) acquire() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		r.count.busy.Add(1)
		return false
	}
}

func (r *Resolver) release() { <-r.slots }
