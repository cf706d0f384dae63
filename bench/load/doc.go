// Package load is the work that bench/nodes has nodes do, the same for every
// kind: an agent is a small program with a node in it that hands itself to Main.
//
// The driver writes requests to the agent's standard input and reads answers
// from its standard output, one JSON value a line:
//
//	{"Do":"bulk","With":{"To":"100.64.0.2","Streams":4,"Length":5000000000}}
//	{"Is":{"Bytes":1234567890,"Before":0,"Mbits":1975.3}}
//
// With and Is are of the types that the requests below name; durations are in
// nanoseconds. A failed request has an Error in its answer. The agent ends with
// its standard input.
package load
