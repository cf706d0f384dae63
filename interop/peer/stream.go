package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	streamEvery = 20 * time.Millisecond // between blocks
	streamBlock = 4 << 10               // bytes of a block

	// closeWait is how long the end of an echoed stream may take.
	closeWait = 20 * time.Second
)

// A Stream is what became of a TCP stream that a node sent to another's echo.
type Stream struct {
	Bytes int64       // sent and come back, the same
	Reads []time.Time // when some of them came back
}

// Resumed returns how long after a moment the first bytes came back behind the
// longest silence since then.
func (s *Stream) Resumed(since time.Time) time.Duration {
	last, longest, end := since, time.Duration(0), since
	for _, r := range s.Reads {
		if r.Before(since) {
			continue
		}
		if gap := r.Sub(last); gap > longest {
			longest, end = gap, r
		}
		last = r
	}
	return end.Sub(since)
}

// A streamSender is a Stream under way.
type streamSender struct {
	conn      net.Conn
	stop      chan struct{}
	done      sync.WaitGroup
	sent, got hash.Hash // of the goroutines until done, as all below
	sentBytes int64
	gotBytes  int64
	reads     []time.Time
	sendErr   error
	recvErr   error
}

// startStream sends random bytes at a steady rate to a node's echo until finish.
func startStream(ctx context.Context, m member, to netip.Addr) (*streamSender, error) {
	c, err := m.Dial(ctx, "tcp", net.JoinHostPort(to.String(), strconv.Itoa(echoPort)))
	if err != nil {
		return nil, err
	}
	s := &streamSender{conn: c, stop: make(chan struct{}), sent: sha256.New(), got: sha256.New()}
	s.done.Go(s.send)
	s.done.Go(s.receive)
	return s, nil
}

// finish half-closes the stream, waits for what is under way, and fails if what
// came back is not what was sent.
func (s *streamSender) finish() (Stream, error) {
	s.conn.SetDeadline(time.Now().Add(closeWait))
	close(s.stop)
	s.done.Wait()
	s.conn.Close()
	report := Stream{s.sentBytes, s.reads}
	if err := errors.Join(s.sendErr, s.recvErr); err != nil {
		return report, fmt.Errorf("stream of %d bytes, %d came back: %w", s.sentBytes, s.gotBytes, err)
	}
	if !bytes.Equal(s.sent.Sum(nil), s.got.Sum(nil)) {
		return report, fmt.Errorf("stream of %d bytes: the %d that came back are others", s.sentBytes, s.gotBytes)
	}
	return report, nil
}

func (s *streamSender) send() {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	source := rand.NewChaCha8(seed)
	block := make([]byte, streamBlock)
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	for {
		source.Read(block)
		n, err := s.conn.Write(block)
		s.sent.Write(block[:n])
		s.sentBytes += int64(n)
		if err != nil {
			s.sendErr = err
			return
		}
		select {
		case <-tick.C:
			continue
		case <-s.stop:
		}
		s.sendErr = s.conn.(interface{ CloseWrite() error }).CloseWrite()
		return
	}
}

func (s *streamSender) receive() {
	b := make([]byte, 1<<16)
	for {
		n, err := s.conn.Read(b)
		if n > 0 {
			s.got.Write(b[:n])
			s.gotBytes += int64(n)
			s.reads = append(s.reads, time.Now())
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			s.recvErr = err
			return
		}
	}
}
