package devnet

import (
	"context"
	"sync"
)

// A service is a server that can be stopped and started again.
type service struct {
	open func(context.Context) (stop func(), err error)

	mu    sync.Mutex // one start or stop at a time
	stop  func()     // nil: not running
	ended bool
}

// start opens the server; one that runs goes on.
func (s *service) start(ctx context.Context) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return ErrClosed
	case s.stop != nil:
		return nil
	}
	s.stop, err = s.open(ctx)
	return err
}

// halt stops the server and waits for it; one that does not run stays so.
func (s *service) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

// end is halt for good.
func (s *service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.close()
}

func (s *service) close() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}
