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
	var said opinions
	_ = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error { // a panic is no answer
		replies := r.askAll(g, q, ways)
		for range ways {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case a := <-replies:
				if said.take(a) {
					return nil
				}
			}
		}
		return nil
	})
	if msg := said.best(len(ways)); msg != nil {
		return r.finish(q, msg)
	}
	r.count.failed.Add(1)
	return q.fail(dnsmessage.RCodeServerFailure)
}

// askAll asks each server on a goroutine of its own.
func (r *Resolver) askAll(g *actor.Group, q *query, ways []Upstream) <-chan reply {
	replies := make(chan reply, len(ways))
	for _, way := range ways {
		g.Go(func(ctx context.Context) error {
			msg, err := r.askOne(ctx, q, way)
			replies <- reply{msg, err}
			return nil
		})
	}
	return replies
}

// Opinions are what servers have said so far.
type opinions struct {
	good    []byte // the first good answer
	failure []byte // the best of the others
	refused int    // servers that said REFUSED
}

// take takes a reply, and reports whether that is enough.
func (o *opinions) take(a reply) (enough bool) {
	switch {
	case !a.soft():
		o.good = a.msg
		return true
	case a.err != nil:
		return false
	case rcode(a.msg) == dnsmessage.RCodeRefused:
		o.refused++
	}
	if o.failure == nil || rcode(o.failure) == dnsmessage.RCodeRefused {
		o.failure = a.msg
	}
	return false
}

// best returns the answer of so many servers, nil when there is none.
func (o *opinions) best(asked int) []byte {
	switch {
	case o.good != nil:
		return o.good
	case o.failure != nil && (rcode(o.failure) == dnsmessage.RCodeServerFailure || o.refused == asked):
		return o.failure
	}
	return nil
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
