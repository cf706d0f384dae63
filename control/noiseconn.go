package control

import (
	"bufio"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/seed94491740/tsnode/host"
)

// Sizes of records in bytes (control.md section 4.1).
const (
	maxRecord     = 4096 // a record on the wire, header included
	maxCiphertext = maxRecord - frameHeader
	maxPlaintext  = maxCiphertext - tagSize

	// recordsPerWrite is how many records one write to the underlying connection
	// carries at most: an HTTP/2 frame of 16 KiB and its header need five.
	recordsPerWrite = 5

	maxErrorText = 4 << 10 // of an error frame, kept as a hint
)

var errNonceExhausted = errors.New("noise: connection has sent or received all its records")

// A Conn is a net.Conn of Noise records, the same at both ends (control.md
// section 4.4). After a failed write, and after a record that does not open, it
// stays unusable: the counters of the two ends would differ (CTL-14).
type Conn struct {
	host.Conn
	secrets [32]byte

	rmu sync.Mutex // Read
	rx  halfConn
	br  *bufio.Reader
	buf [maxPlaintext]byte // opened, not yet read
	got []byte             // within buf

	wmu sync.Mutex // Write
	tx  halfConn
	out []byte // sealed records of one write
}

// NewConn makes the record layer of a connection whose handshake is done. br
// reads from nc and holds what was read ahead of the handshake's end; nil when
// nothing was.
func NewConn(nc net.Conn, br *bufio.Reader, s Secrets) *Conn {
	if br == nil || br.Size() < maxRecord {
		br = readerOver(nc, br)
	}
	return &Conn{
		Conn: host.Conn{Inner: nc}, secrets: s.Hash, br: br,
		rx: halfConn{aead: newAEAD(s.recv)},
		tx: halfConn{aead: newAEAD(s.send)},
	}
}

// readerOver returns a reader that can hold a whole record, with what old has
// buffered in front.
func readerOver(nc net.Conn, old *bufio.Reader) *bufio.Reader {
	if old == nil {
		return bufio.NewReaderSize(nc, maxRecord)
	}
	return bufio.NewReaderSize(old, maxRecord)
}

// HandshakeHash identifies the connection to both ends (CTL-15).
func (c *Conn) HandshakeHash() [32]byte { return c.secrets }

// Read reads the byte stream; record boundaries carry no meaning. A timeout
// leaves the connection usable, every other error does not.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.got) == 0 { // a record without plaintext is legal and skipped
		if err := c.readRecord(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.got)
	c.got = c.got[n:]
	return n, nil
}

// readRecord opens the next record. It looks before it takes, so that a read
// deadline in the middle of a record loses nothing.
func (c *Conn) readRecord() error {
	if c.rx.err != nil {
		return c.rx.err
	}
	head, err := c.br.Peek(frameHeader)
	if err != nil {
		return c.rx.ioError(err, len(head) > 0)
	}
	size := int(binary.BigEndian.Uint16(head[1:]))
	switch {
	case head[0] != frameRecord:
		return c.rx.fail(fmt.Errorf("noise: frame of type %d where a record belongs", head[0]))
	case size > maxCiphertext || size < tagSize:
		return c.rx.fail(fmt.Errorf("noise: record of %d bytes", size))
	}
	frame, err := c.br.Peek(frameHeader + size)
	if err != nil {
		return c.rx.ioError(err, true)
	}
	c.got, err = c.rx.open(c.buf[:0], frame[frameHeader:])
	if err != nil {
		return err
	}
	_, err = c.br.Discard(len(frame))
	return err
}

// Write seals p into records of at most 4077 bytes.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for n < len(p) {
		c.out = c.out[:0]
		end := n
		for i := 0; i < recordsPerWrite && end < len(p); i++ {
			chunk := p[end:min(end+maxPlaintext, len(p))]
			if c.out, err = c.tx.seal(c.out, chunk); err != nil {
				return n, err
			}
			end += len(chunk)
		}
		if _, err := c.Inner.Write(c.out); err != nil {
			// Part of the record may be out: the counter is lost (section 4.4).
			return n, c.tx.fail(err)
		}
		n = end
	}
	return n, nil
}

// halfConn is one direction: its cipher, its counter and the error that ended
// it.
type halfConn struct {
	aead    cipher.AEAD
	counter uint64
	err     error
}

func (h *halfConn) seal(dst, plaintext []byte) ([]byte, error) {
	nonce, err := h.nonce()
	if err != nil {
		return dst, err
	}
	size := len(plaintext) + tagSize
	dst = append(dst, frameRecord, byte(size>>8), byte(size))
	return h.aead.Seal(dst, nonce[:], plaintext, nil), nil
}

func (h *halfConn) open(dst, ciphertext []byte) ([]byte, error) {
	nonce, err := h.nonce()
	if err != nil {
		return nil, err
	}
	plain, err := h.aead.Open(dst, nonce[:], ciphertext, nil)
	if err != nil {
		return nil, h.fail(fmt.Errorf("noise: record %d: %w", h.counter-1, err))
	}
	return plain, nil
}

// nonce returns the next nonce: four zero bytes and a big-endian counter, unlike
// Noise's own little-endian one (section 4.4). 2^64-1 is forbidden.
func (h *halfConn) nonce() (n [chacha20poly1305.NonceSize]byte, err error) {
	if h.err != nil {
		return n, h.err
	}
	if h.counter == math.MaxUint64 {
		return n, h.fail(errNonceExhausted)
	}
	binary.BigEndian.PutUint64(n[4:], h.counter)
	h.counter++
	return n, nil
}

func (h *halfConn) fail(err error) error {
	h.err = err
	return err
}

// ioError makes an error of the underlying connection final unless it is a
// timeout.
func (h *halfConn) ioError(err error, inRecord bool) error {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return err
	}
	if inRecord && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return h.fail(err)
}

func newAEAD(k [chacha20poly1305.KeySize]byte) cipher.AEAD {
	a, err := chacha20poly1305.New(k[:])
	if err != nil {
		panic(fmt.Sprintf("control: ChaCha20-Poly1305 with a 32-byte key: %v", err)) // cannot be
	}
	return a
}
