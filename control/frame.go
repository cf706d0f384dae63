package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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

var errEmptyFrame = errors.New("map stream: empty frame")
