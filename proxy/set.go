package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

// DefaultMaxTotal is how many connections and flows all forwards of a Set have
// together at most, unless its Config says otherwise.
const DefaultMaxTotal = 65536

// postPatience bounds the posting of what is to be done even if the time of who
// wants it is over.
const postPatience = 5 * time.Second

// A Config is what a Set works with.
type Config struct {
	Tailnet  Tailnet
	Host     Host
	Ready    func(ctx context.Context) error    // returns once the node has its addresses; needed where Tailnet fails with ErrNotYet
	WhoIs    func(c net.Conn) (Identity, error) // who has opened a connection from the tailnet
	Proxies  Proxies                            // what clients of proxies may do
	MaxTotal int                                // connections and flows of all forwards together; 0: DefaultMaxTotal
	Logger   *slog.Logger
}

// A Set is an actor that has forwards run.
type Set struct {
	config Config
	limit  *carry.Limit
	inbox  chan message
	want   *actor.Cell[wanted]     // outlives a restart
	now    *actor.Cell[[]*running] // those that run, in the order they were wanted
}

// NewSet returns a set of no forwards.
func NewSet(c Config) *Set {
	return &Set{
		config: c,
		limit:  carry.NewLimit(cmp.Or(c.MaxTotal, DefaultMaxTotal), 0, nil),
		inbox:  make(chan message),
		want:   actor.NewCell(wanted{}),
		now:    actor.NewCell[[]*running](nil),
	}
}

// String names the actor.
func (*Set) String() string { return "proxy.Set" }

// A ListenError says that a forward cannot listen. It tries again until it can, or
// is no longer wanted.
type ListenError struct {
	Spec Spec
	Err  error
}

// Error names the forward.
func (e *ListenError) Error() string { return fmt.Sprintf("%v: %v", e.Spec, e.Err) }

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// Apply makes want the forwards of the set, beside those of Add: those that are new
// are opened, those that are gone end with all their connections, the others do not
// notice. A SOCKS5 and an HTTP proxy on one address are one (SVC-166). It returns
// once each new forward listens, or has failed to: then the error joins a
// *ListenError for each, and they try again. One of an address of a node that does
// not know its addresses yet is not waited for. What no text stands for changes
// nothing. Serve must run.
func (s *Set) Apply(ctx context.Context, want []Spec) error {
	if err := checkAll(want); err != nil {
		return err
	}
	want = slices.Clone(want) // the caller's own may change
	started, err := s.change(ctx, func(w *wanted) error {
		w.applied = want
		return nil
	})
	if err != nil {
		return err
	}
	return awaitListening(ctx, started)
}

// Add opens forwards beside those that there are, and returns once each listens.
// They stay, whatever Apply is given, until Remove. If one cannot listen, none of
// add is kept, and the error joins a *ListenError for each that cannot. Those that
// the set has already are left as they are. Serve must run.
func (s *Set) Add(ctx context.Context, add ...Spec) error {
	if err := checkAll(add); err != nil {
		return err
	}
	var fresh []Spec
	started, err := s.change(ctx, func(w *wanted) (err error) {
		fresh, err = w.add(add)
		return err
	})
	if err != nil {
		return err
	}
	if err = awaitListening(ctx, started); err == nil {
		return nil
	}
	insist, cancel := insisting(ctx)
	defer cancel()
	_, undoErr := s.change(insist, func(w *wanted) error {
		w.added = without(w.added, fresh, sameSpec)
		return nil
	})
	return errors.Join(err, undoErr)
}

// Remove ends forwards, with all their connections; options need not be those that
// they have. The error wraps ErrNoForward if one of them is not there: then none
// ends. One that Apply has brought comes back with the next Apply that names it.
// Serve must run.
func (s *Set) Remove(ctx context.Context, remove ...Spec) error {
	_, err := s.change(ctx, func(w *wanted) error { return w.remove(remove) })
	return err
}

// List tells how each forward fares, in the order they were wanted.
func (s *Set) List() (all []Status) {
	for _, r := range s.now.Get() {
		all = append(all, r.status())
	}
	return all
}

// Connections returns how many connections there are now, those that Drain would wait
// for: flows of datagrams are not among them.
func (s *Set) Connections() (n int) {
	for _, r := range s.now.Get() {
		if r.spec.Network != "udp" {
			n += r.limit.Open()
		}
	}
	return n
}

// Drain ends listening, even if ctx is over, and returns once the last connection
// has ended by itself, or ctx has (SVC-175). What is open then ends with Serve. Flows
// of datagrams end at once. From then on the set takes no forwards.
func (s *Set) Drain(ctx context.Context) error {
	insist, cancel := insisting(ctx)
	defer cancel()
	left := make(chan []*running, 1)
	if err := s.post(insist, drainMessage{left: left}); err != nil {
		return err
	}
	for _, r := range <-left {
		select {
		case <-r.ended:
		case <-ctx.Done():
			if r.limit.Open() > 0 {
				return ctx.Err()
			}
		}
	}
	return nil
}

// insisting returns a context for what is to be done even if ctx is over.
func insisting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), postPatience)
}

// explain adds to why a forward cannot listen that another one of the set has its
// port.
func (s *Set) explain(spec Spec, err error) error {
	if !carry.IsErrno(err, syscall.EADDRINUSE) {
		return err
	}
	_, port, _ := net.SplitHostPort(spec.Listen)
	for _, r := range s.now.Get() {
		_, other, _ := net.SplitHostPort(r.spec.Listen)
		if r.spec != spec && (r.spec.Kind == Remote) == (spec.Kind == Remote) && r.spec.Network == spec.Network && port != "" && other == port {
			return fmt.Errorf("%w: %v is for the same port", err, r.spec)
		}
	}
	return err
}

// change has Serve change what is wanted, and returns what it has started.
func (s *Set) change(ctx context.Context, edit func(*wanted) error) ([]*running, error) {
	done := make(chan changed, 1)
	if err := s.post(ctx, changeMessage{edit: edit, done: done}); err != nil {
		return nil, err
	}
	c := <-done
	return c.started, c.err
}

// awaitListening waits until all listen or have failed to.
func awaitListening(ctx context.Context, started []*running) error {
	var errs []error
	for _, r := range started {
		if err := r.awaitListening(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// post hands a message to Serve.
func (s *Set) post(ctx context.Context, m message) error {
	select {
	case s.inbox <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
