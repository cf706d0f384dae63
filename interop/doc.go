// Package interop tests the product against code that nobody of this project
// wrote: tsnet nodes, the testcontrol server and the reference's relay.
package interop
