// Package peer runs nodes of a tailnet as processes of their own, ours or the
// reference's, so that each has a host to itself, and may be killed. A test
// starts them with Start and tells them what to do by the methods of a Process;
// they are the test's own binary again, which must call Main first of all.
//
// What is asked goes by net/rpc over a pair of pipes. A process ends when its
// pipe does, so none outlives the test.
package peer
