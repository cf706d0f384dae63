package node_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/seed94491740/tsnode/node"
)

// A failed Dial tells what a socket of the system would have told.
func TestDialErrorIsOneOfASocket(t *testing.T) {
	all := []syscall.Errno{syscall.ECONNREFUSED, syscall.EACCES, syscall.ENETUNREACH, syscall.EHOSTUNREACH}
	for cause, want := range map[error]syscall.Errno{
		node.ErrRefused: syscall.ECONNREFUSED, node.ErrRejected: syscall.EACCES, node.ErrNoRoute: syscall.ENETUNREACH,
		node.ErrNoExitNode: syscall.ENETUNREACH, node.ErrNameNotFound: syscall.EHOSTUNREACH, node.ErrNoAnswer: syscall.EHOSTUNREACH, node.ErrNotRunning: 0,
	} {
		err := fmt.Errorf("forward: %w", &node.DialError{Err: fmt.Errorf("%w: for some reason", cause)})
		if !errors.Is(err, cause) {
			t.Errorf("%v is not itself", err)
		}
		for _, errno := range all {
			if got := errors.Is(err, errno); got != (errno == want) {
				t.Errorf("%v is %v: %v", err, errno, got)
			}
		}
	}
}
