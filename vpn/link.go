package vpn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Bounds of a link.
const (
	replyBacklog   = 1024            // replies that wait for the writer
	requestBacklog = 64              // messages that wait to be looked at
	drainTimeout   = 5 * time.Second // for the peer to read what is last, and to close; VPN-34
	readBuffer     = 32 << 10        // bytes
)

// A link is a stream after the handshake: it reads and writes frames, each on a
// goroutine of its own, and joins replies with requests.
type link struct {
	stream Stream
	in     *bufio.Reader
	decode func([]byte) (message, error)
	logs   *logQueue // what is written when there is nothing else; nil for none
	log    *slog.Logger

	observe func(message) // sees every message first, by the reader; nil for none

	calls    *calls
	incoming chan message // all but replies; closed when the read side has ended
	readErr  error        // why, nil for a clean end; read it after incoming is closed

	replies chan []byte   // frames of replies, which must not wait for the peer to read
	out     chan []byte   // other frames; taken only when they are written next
	last    chan []byte   // the frame that ends the write side
	written chan struct{} // closed when the write side has ended
}

// newLink joins the parts of a link. The header of the peer has been read.
func newLink(s Stream, in *bufio.Reader, decode func([]byte) (message, error), logs *logQueue, log *slog.Logger) *link {
	return &link{
		stream: s, in: in, decode: decode, logs: logs, log: log,
		calls: newCalls(), incoming: make(chan message, requestBacklog),
		replies: make(chan []byte, replyBacklog), out: make(chan []byte), last: make(chan []byte),
		written: make(chan struct{}),
	}
}

// read reads frames until the stream ends. A reply goes to who waits for it at
// once, whatever happens to other messages (VPN-13).
func (l *link) read(ctx context.Context) error {
	defer close(l.incoming)
	defer l.calls.end()
	for {
		m, err := l.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			l.readErr = err
			return nil // whoever reads incoming decides what follows
		}
		if l.observe != nil {
			l.observe(m)
		}
		if m.GetRpc().GetResponseTo() != 0 {
			l.onReply(m)
			continue
		}
		select {
		case l.incoming <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) next() (message, error) {
	b, err := readFrame(l.in)
	if err != nil {
		return nil, err
	}
	return l.decode(b)
}

func (l *link) onReply(m message) {
	if m.GetRpc().GetMsgId() != 0 {
		l.log.Debug("vpn: message is both request and reply: taken as a reply", "id", m.GetRpc().GetResponseTo())
	}
	if !l.calls.deliver(m) {
		l.log.Debug("vpn: reply that nobody waits for", "id", m.GetRpc().GetResponseTo())
	}
}

// errClosing says that nothing is written any more.
var errClosing = errors.New("vpn: the stream is closing")

// write writes frames, each with one Write (VPN-10), until the last one or until
// the peer takes none any more: then the read side tells soon why.
func (l *link) write(ctx context.Context) error {
	err := l.writeFrames(ctx)
	close(l.written)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	l.log.Debug("vpn: write", "err", err)
	if actor.Sleep(ctx, drainTimeout) != nil {
		return ctx.Err()
	}
	return fmt.Errorf("vpn: write: %w", err)
}

// writeFrames writes until the last frame. Replies go first: what was handed over
// before another message goes before it. Logs go when there is nothing else.
func (l *link) writeFrames(ctx context.Context) error {
	for {
		select {
		case f := <-l.replies:
			if err := l.put(f); err != nil {
				return err
			}
			continue
		default:
		}
		var err error
		select {
		case f := <-l.replies:
			err = l.put(f)
		case f := <-l.out:
			err = l.putAfterReplies(f)
		case <-l.logs.ready():
			err = l.putAfterReplies(l.logs.next())
		case f := <-l.last:
			return l.putLast(f)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// put writes one frame; an empty one is none.
func (l *link) put(frame []byte) error {
	if len(frame) == 0 {
		return nil
	}
	_, err := l.stream.Write(frame)
	return err
}

// putAfterReplies writes the replies that wait, then frame.
func (l *link) putAfterReplies(frame []byte) error {
	for {
		select {
		case f := <-l.replies:
			if err := l.put(f); err != nil {
				return err
			}
		default:
			return l.put(frame)
		}
	}
}

// putLast writes what waits, then the last frame, and ends the write side. No
// frame follows it (VPN-34).
func (l *link) putLast(frame []byte) error {
	for f := l.logs.next(); f != nil; f = l.logs.next() {
		if err := l.put(f); err != nil {
			return err
		}
	}
	if err := l.putAfterReplies(frame); err != nil {
		return err
	}
	return l.stream.CloseWrite()
}

// post hands a message to the writer, and returns when that has taken it.
func (l *link) post(ctx context.Context, m message) error {
	frame, err := encode(m)
	if err != nil {
		return err
	}
	select {
	case l.out <- frame:
		return nil
	case <-l.written:
		return errClosing
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errUnread says that the peer asks without end and does not read.
var errUnread = fmt.Errorf("vpn: the peer has left %d answers unread", replyBacklog)

// reply answers a request. It never waits: a peer that leaves too many answers
// unread has errUnread end the stream.
func (l *link) reply(m message, otherwise message) error {
	frame, err := encode(m)
	if err != nil {
		l.log.Error("vpn: reply", "err", err)
		frame, _ = encode(otherwise)
	}
	select {
	case l.replies <- frame:
		return nil
	case <-l.written:
		return nil
	default:
		return errUnread
	}
}

// call sends the request that build makes, and returns its reply within timeout
// (VPN-19).
func (l *link) call(ctx context.Context, what string, timeout time.Duration, build func(*wire.RPC) message) (message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no reply within %v", timeout))
	defer cancel()
	id, reply := l.calls.begin()
	defer l.calls.forget(id)
	err := l.post(ctx, build(request(id)))
	if err == nil || errors.Is(err, errClosing) {
		var m message
		if m, err = l.calls.await(ctx, reply); err == nil {
			return m, nil
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("vpn: %s: %w", what, err)
}

// finish writes the last frame, none when it is nil, ends the write side, and
// reads until the peer has done the same, all within 5 s. Of a peer that has done
// it before, it waits for the last frame to be read. It is called by who
// reads incoming.
func (l *link) finish(ctx context.Context, frame []byte) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	select {
	case l.last <- frame:
	case <-l.written:
	case <-ctx.Done():
		return
	}
	incoming, written := l.incoming, l.written
	for incoming != nil || written != nil {
		select {
		case _, ok := <-incoming:
			if !ok {
				incoming = nil
			}
		case <-written:
			written = nil
		case <-ctx.Done():
			return
		}
	}
}
