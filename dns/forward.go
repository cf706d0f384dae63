package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	udpPatience = 2 * time.Second // of UDP alone, before TCP is tried as well; SVC-75
	tcpTimeout  = 5 * time.Second // of a question over TCP; SVC-75
)

// A reply is what came of asking a server.
type reply struct {
	msg []byte // nil when there is none
	err error  // why
}

// soft reports whether another server's answer is to be preferred (SVC-75).
func (a *reply) soft() bool {
	if a.err != nil {
		return true
	}
	code := rcode(a.msg)
	return code == dnsmessage.RCodeServerFailure || code == dnsmessage.RCodeRefused
}

// forward asks all upstream servers, each after its delay, and returns the first
// good answer. Without one the answer is a failure: REFUSED if that is what all
// say, else SERVFAIL, a server's own if there is one.
func (r *Resolver) forward(ctx context.Context, q *query, ways []Upstream) []byte {
	r.count.forwarded.Add(1)
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	replies := make(chan reply, len(ways))
	var good, failure []byte
	refused := 0
	_ = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error { // a panic is no answer
		for _, way := range ways {
			g.Go(func(ctx context.Context) error {
				msg, err := r.askOne(ctx, q, way)
				replies <- reply{msg, err}
				return nil
			})
		}
		for range ways {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case a := <-replies:
				switch {
				case !a.soft():
					good = a.msg
					return nil
				case a.err == nil && rcode(a.msg) == dnsmessage.RCodeRefused:
					refused++
				}
				if a.err == nil && (failure == nil || rcode(failure) == dnsmessage.RCodeRefused) {
					failure = a.msg
				}
			}
		}
		return nil
	})
	switch {
	case good != nil:
		return r.finish(q, good)
	case failure != nil && (rcode(failure) == dnsmessage.RCodeServerFailure || refused == len(ways)):
		return r.finish(q, failure)
	}
	r.count.failed.Add(1)
	return q.fail(dnsmessage.RCodeServerFailure)
}

// finish makes an upstream server's message an answer to the client.
func (r *Resolver) finish(q *query, msg []byte) []byte {
	binary.BigEndian.PutUint16(msg, q.header.ID)
	if q.overUDP {
		clampOPT(msg)
	}
	return q.fit(msg)
}

// outgoing returns the client's message as it is sent on: with another ID, so that
// nobody who knows the client's can answer in the server's place.
func (q *query) outgoing(id uint16) []byte {
	msg := bytes.Clone(q.raw)
	binary.BigEndian.PutUint16(msg, id)
	clampOPT(msg)
	return msg
}

// askOne asks one server, after its delay.
func (r *Resolver) askOne(ctx context.Context, q *query, way Upstream) ([]byte, error) {
	if err := actor.Sleep(ctx, way.Delay); err != nil {
		return nil, err
	}
	if way.URL != "" {
		return r.askHTTP(ctx, q, &way)
	}
	return r.askPlain(ctx, q, way.Addr)
}
