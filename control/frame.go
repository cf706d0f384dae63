package control

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Limits of the map stream in bytes (control.md section 8.2).
const (
	maxFrame   = 64 << 20  // a frame as sent
	maxDecoded = 256 << 20 // its JSON

	// maxWindow is the largest window a zstd frame may ask for. Servers in Go
	// use at most 8 MiB, which is also what RFC 8878 section 3.1.1.1.2
	// recommends every decoder to support.
	maxWindow = 8 << 20

	frameLength = 4 // little-endian length in front of a frame

	spareTime = time.Second // that a decoder is kept for the next frame
)

// A FrameWriter writes a map stream, as the server. It is for one goroutine.
type FrameWriter struct {
	w   io.Writer
	enc *zstd.Encoder // nil: plain frames
	buf []byte
}

// NewFrameWriter returns a writer of frames to w; compress is
// MapRequest.Compress.
func NewFrameWriter(w io.Writer, compress string) (*FrameWriter, error) {
	switch compress {
	case "":
		return &FrameWriter{w: w}, nil
	case CompressZstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(1<<20), zstd.WithEncoderLevel(zstd.SpeedFastest))
		return &FrameWriter{w: w, enc: enc}, err
	}
	return nil, fmt.Errorf("map stream: compression %q is neither empty nor %q", compress, CompressZstd)
}

// WriteMap sends m as one frame, in one write. It does not flush w.
func (fw *FrameWriter) WriteMap(m *MapResponse) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("map stream: %w", err)
	}
	return fw.WriteRaw(body)
}

// WriteRaw sends the JSON of a MapResponse as one frame, in one write.
func (fw *FrameWriter) WriteRaw(body []byte) error {
	fw.buf = append(fw.buf[:0], make([]byte, frameLength)...)
	if fw.enc != nil {
		fw.buf = fw.enc.EncodeAll(body, fw.buf)
	} else {
		fw.buf = append(fw.buf, body...)
	}
	size := len(fw.buf) - frameLength
	if size == 0 || size > maxFrame {
		return fmt.Errorf("map stream: frame of %d bytes, limit %d", size, maxFrame)
	}
	binary.LittleEndian.PutUint32(fw.buf, uint32(size))
	_, err := fw.w.Write(fw.buf)
	return err
}

// WriteMapFrame sends m as one frame to w; compress is MapRequest.Compress. A
// stream of many frames is better written by one FrameWriter.
func WriteMapFrame(w io.Writer, m *MapResponse, compress string) error {
	fw, err := NewFrameWriter(w, compress)
	if err != nil {
		return err
	}
	return fw.WriteMap(m)
}

// A frameReader reads a map stream, one frame at a time, without ever holding a
// whole frame (CTL-31).
type frameReader struct {
	r          io.Reader
	compressed bool
	decoder    *zstd.Decoder // of the frame under way; nil: none, or a plain frame
	frame      io.LimitedReader
	decoded    io.LimitedReader

	// spare is for the next frame: 100 kB, or as much as the window of a large frame.
	// A stream is silent for most of its life, and then has none.
	spare atomic.Pointer[zstd.Decoder]
}

// newFrameReader returns a reader of frames compressed as asked for.
func newFrameReader(r io.Reader, compress string) *frameReader {
	return &frameReader{r: r, compressed: compress != ""}
}

// newDecoder returns a decoder without goroutines, which the collector may take.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
}

// next waits for a frame and returns its JSON as a stream, which must be read
// to its end and then checked with finish. It is borrowed until the next call.
func (fr *frameReader) next() (io.Reader, error) {
	var head [frameLength]byte
	forget := time.AfterFunc(spareTime, func() { fr.spare.Store(nil) })
	_, err := io.ReadFull(fr.r, head[:])
	forget.Stop()
	if err != nil {
		return nil, fmt.Errorf("map stream: %w", err)
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size == 0 || size > maxFrame {
		return nil, fmt.Errorf("map stream: frame of %d bytes, limit %d", size, maxFrame)
	}
	fr.frame = io.LimitedReader{R: fr.r, N: int64(size)}
	fr.decoded = io.LimitedReader{R: &fr.frame, N: maxDecoded}
	if fr.compressed {
		if err := fr.decompress(); err != nil {
			return nil, fmt.Errorf("map stream: %w", err)
		}
	}
	return &fr.decoded, nil
}

// decompress has a decoder between the frame and who reads it.
func (fr *frameReader) decompress() (err error) {
	if fr.decoder = fr.spare.Swap(nil); fr.decoder == nil {
		if fr.decoder, err = newDecoder(); err != nil {
			return err
		}
	}
	fr.decoded.R = fr.decoder
	return fr.decoder.Reset(&fr.frame)
}

// finish reports whether the frame was read to its very end.
func (fr *frameReader) finish() error {
	if d := fr.decoder; d != nil && d.Reset(nil) == nil {
		fr.spare.Store(d)
	}
	fr.decoder, fr.decoded.R = nil, nil
	switch {
	case fr.decoded.N == 0:
		return fmt.Errorf("map stream: frame of more than %d bytes of JSON", maxDecoded)
	case fr.frame.N != 0:
		return fmt.Errorf("map stream: %d bytes after the end of a frame", fr.frame.N)
	}
	return nil
}
