//go:build !unix

package simnet

import (
	"testing"
	"time"
)

var began = time.Now()

// processorTime returns real time, where processor time is not known.
func processorTime(*testing.T) time.Duration { return time.Since(began) }
