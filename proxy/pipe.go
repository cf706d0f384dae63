package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// A halfCloser is a connection whose write side can be closed alone, so that
// the reply to the last request still arrives.
type halfCloser interface{ CloseWrite() error }

// Pipe copies between two connections until both directions have ended, passing
// on half-close each way (SVC-53), and closes both. An error of one direction,
// and the end of ctx, close both at once. It returns the bytes copied and the
// first error other than an ordinary end.
func Pipe(ctx context.Context, a, b net.Conn) (aToB, bToA int64, err error) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	defer a.Close()
	defer b.Close()
	var wg sync.WaitGroup
	var errA, errB error
	wg.Go(func() { aToB, errA = copyHalf(b, a) })
	wg.Go(func() { bToA, errB = copyHalf(a, b) })
	wg.Wait()
	if ctx.Err() != nil {
		return aToB, bToA, ctx.Err()
	}
	return aToB, bToA, errors.Join(errA, errB)
}

// copyHalf copies from src to dst until src ends, then closes dst for writing.
func copyHalf(dst, src net.Conn) (int64, error) {
	n, err := io.Copy(dst, src)
	if err != nil {
		// The other direction waits for data that can no longer be answered.
		src.Close()
		dst.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil // the other direction has failed first and says why
		}
		return n, err
	}
	if h, ok := dst.(halfCloser); ok {
		h.CloseWrite() // an error shows up in the other direction
		return n, nil
	}
	return n, dst.Close()
}
