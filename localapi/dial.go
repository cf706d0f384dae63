package localapi

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
)

const (
	dialProtocol = "ts-dial" // of the upgrade
	dialTimeout  = 30 * time.Second

	// framesHeader, with the value framesLength, asks for a stream in which each
	// datagram comes behind its length, so that their bounds hold. Without it a
	// datagram is what happens to be read at once.
	framesHeader = "Dial-Frames"
	framesLength = "length16"
)

// dial connects to an address on the tailnet, and makes the client's connection
// the way there. Who asks for one that is not on the tailnet is told to go there
// by itself: it is not for us to lend it our network.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	h := r.Header
	if !strings.EqualFold(h.Get("Connection"), "upgrade") || h.Get("Upgrade") != dialProtocol {
		http.Error(w, "bad ts-dial upgrade", http.StatusBadRequest)
		return
	}
	host, port, network := h.Get("Dial-Host"), h.Get("Dial-Port"), h.Get("Dial-Network")
	if host == "" || port == "" {
		http.Error(w, "missing Dial-Host or Dial-Port header", http.StatusBadRequest)
		return
	}
	if network == "" {
		network = "tcp"
	}
	takeTime(w)
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	c, err := s.config.Node.Dial(ctx, network, net.JoinHostPort(host, port))
	cancel()
	var outside *OutsideError
	switch {
	case errors.As(err, &outside):
		w.Header().Set("Dial-Self", "true")
		w.Header().Set("Dial-Addr", outside.Addr.String())
		w.WriteHeader(http.StatusOK)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		s.join(w, r, c, strings.HasPrefix(network, "udp") && h.Get(framesHeader) == framesLength)
	}
}

// join makes the client's connection the way to c, until both directions have
// ended. It is taken over before the answer, and not read by way of net/http, which
// takes a client that has ended its direction for one that has gone.
func (s *Server) join(w http.ResponseWriter, r *http.Request, c net.Conn, framed bool) {
	defer c.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	in := &endReader{r: io.MultiReader(io.LimitReader(buffered, int64(buffered.Reader.Buffered())), client), ended: make(chan struct{})}
	h := w.Header()
	h.Set("Upgrade", dialProtocol)
	h.Set("Connection", "upgrade")
	if framed {
		h.Set(framesHeader, framesLength)
	}
	fmt.Fprintf(buffered, "HTTP/1.1 %d Switching Protocols\r\n", http.StatusSwitchingProtocols)
	h.Write(buffered)
	buffered.WriteString("\r\n")
	if err := buffered.Flush(); err != nil {
		return
	}
	if framed {
		err = carryDatagrams(r.Context(), &framedConn{client, &unframer{bufio.NewReader(in)}, &framer{w: client}}, c)
	} else {
		err = carryStream(r.Context(), client, in, c)
	}
	if err != nil {
		s.config.Logger.Debug("a connection through the socket has ended", "err", err)
	}
}

// carryStream copies between a client and far until both directions have ended, or
// the client has gone.
func carryStream(ctx context.Context, client net.Conn, in *endReader, far net.Conn) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(func(ctx context.Context) error {
			select {
			case <-in.ended:
			case <-ctx.Done():
				return nil
			}
			if b, ok := client.(*boundedConn); ok && b.awaitGone() {
				far.Close()
			}
			return nil
		})
		return carry.Pipe(ctx, &hijacked{client, in}, far, new(carry.Traffic))
	})
}

// carryDatagrams copies between a client and far until the client ends.
func carryDatagrams(ctx context.Context, near *framedConn, far net.Conn) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		closeBoth := func() { near.Close(); far.Close() }
		defer context.AfterFunc(ctx, closeBoth)()
		defer closeBoth()
		g.Go(func(context.Context) error {
			defer near.Close()
			_, err := near.ReadFrom(far)
			return err
		})
		_, err := near.WriteTo(far)
		return err
	})
}

// An endReader says when what it reads has ended.
type endReader struct {
	r     io.Reader
	once  sync.Once
	ended chan struct{}
}

func (e *endReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil {
		e.once.Do(func() { close(e.ended) })
	}
	return n, err
}

// A hijacked is a connection of which something may have been read already.
type hijacked struct {
	net.Conn
	r io.Reader
}

func (h *hijacked) Read(b []byte) (int, error) { return h.r.Read(b) }

// CloseWrite ends what is sent.
func (h *hijacked) CloseWrite() error { return h.Conn.(closeWriter).CloseWrite() }

type closeWriter interface{ CloseWrite() error }

// A framedConn carries datagrams over a stream.
type framedConn struct {
	net.Conn
	in  *unframer
	out *framer
}

func (f *framedConn) Read(b []byte) (int, error)  { return f.in.Read(b) }
func (f *framedConn) Write(b []byte) (int, error) { return f.out.Write(b) }

// WriteTo writes each datagram that is read at once.
func (f *framedConn) WriteTo(w io.Writer) (n int64, err error) {
	for buf := make([]byte, maxDatagram); ; {
		length, err := f.in.Read(buf)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		if _, err := w.Write(buf[:length]); err != nil {
			return n, err
		}
		n += int64(length)
	}
}

// ReadFrom reads each datagram from r at once, and writes it.
func (f *framedConn) ReadFrom(r io.Reader) (n int64, err error) {
	for buf := make([]byte, maxDatagram); ; {
		length, err := r.Read(buf)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		if _, err := f.out.Write(buf[:length]); err != nil {
			return n, err
		}
		n += int64(length)
	}
}

// maxDatagram is the longest datagram in bytes (RFC 768).
const maxDatagram = 1<<16 - 1

// A framer writes each datagram behind its length.
type framer struct {
	w   io.Writer
	buf []byte
}

// Write writes one datagram.
func (f *framer) Write(b []byte) (int, error) {
	if len(b) > maxDatagram {
		return 0, fmt.Errorf("datagram of %d bytes", len(b))
	}
	f.buf = binary.BigEndian.AppendUint16(f.buf[:0], uint16(len(b)))
	f.buf = append(f.buf, b...)
	if _, err := f.w.Write(f.buf); err != nil {
		return 0, err
	}
	return len(b), nil
}

// An unframer reads datagrams, each behind its length.
type unframer struct{ r *bufio.Reader }

// Read reads one datagram; b has room for any.
func (u *unframer) Read(b []byte) (int, error) {
	var length [2]byte
	if _, err := io.ReadFull(u.r, length[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > len(b) {
		return 0, io.ErrShortBuffer
	}
	_, err := io.ReadFull(u.r, b[:n])
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
