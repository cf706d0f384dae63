package relay

import (
	"errors"
	"io"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// smallSize is the space in bytes for what precedes the data of a packet: the
// header and two keys. It is all the read buffer that an idle client has.
const smallSize = derp.HeaderSize + 2*key.Size

// A reader reads frames. Packet data is read straight to where it stays; what
// the transport below has buffered is never copied twice.
type reader struct {
	src     io.Reader
	pending []byte // of the stream, in front of src
	start   int    // unread bytes are small[start:end]
	end     int
	small   [smallSize]byte
}

// read reads from the stream what is there, at least a byte.
func (r *reader) read(p []byte) (int, error) {
	if len(r.pending) == 0 {
		return r.src.Read(p)
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	if len(r.pending) == 0 {
		r.pending = nil
	}
	return n, nil
}

// take returns the next n bytes, at most smallSize, borrowed until the next
// call. A stream that ends in front of them gives io.EOF.
func (r *reader) take(n int) ([]byte, error) {
	if r.end-r.start < n {
		r.end = copy(r.small[:], r.small[r.start:r.end])
		r.start = 0
	}
	for r.end-r.start < n {
		got, err := r.read(r.small[r.end:])
		r.end += got
		if err != nil && r.end-r.start < n {
			if r.end > r.start {
				err = noEOF(err)
			}
			return nil, err
		}
	}
	b := r.small[r.start : r.start+n]
	r.start += n
	return b, nil
}

// header returns the type and payload length of the next frame.
func (r *reader) header() (derp.FrameType, uint32, error) {
	b, err := r.take(derp.HeaderSize)
	if err != nil {
		return 0, 0, err
	}
	t, n, _ := derp.ParseHeader(b)
	return t, n, nil
}

// key returns the next key.
func (r *reader) key() (key.NodePublic, error) {
	b, err := r.take(key.Size)
	if err != nil {
		return key.NodePublic{}, noEOF(err)
	}
	return key.NodePublicFromRaw([key.Size]byte(b)), nil
}

// full fills p.
func (r *reader) full(p []byte) error {
	n := copy(p, r.small[r.start:r.end])
	r.start += n
	for n < len(p) {
		got, err := r.read(p[n:])
		n += got
		if err != nil && n < len(p) {
			return noEOF(err)
		}
	}
	return nil
}

// discard skips n bytes.
func (r *reader) discard(n uint32) error {
	for n > 0 {
		b, err := r.take(int(min(n, smallSize)))
		if err != nil {
			return noEOF(err)
		}
		n -= uint32(len(b))
	}
	return nil
}

// noEOF turns an end in the middle of a frame into io.ErrUnexpectedEOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
