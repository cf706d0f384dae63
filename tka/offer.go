package tka

// maxOffered is how far back an offer goes in updates, but for the oldest; as in
// the reference client.
const maxOffered = 400

// Offer returns what a control server is told to find out what this node lacks:
// the head, and some of the updates before it, newest first, the oldest at the
// end. The further back, the fewer of them are named.
func (a *Authority) Offer() (head string, ancestors []string) {
	chain := a.chain()
	for back := 4; back < min(len(chain)-1, maxOffered); back *= 4 {
		ancestors = append(ancestors, chain[back].hash.String())
	}
	return a.Head().String(), append(ancestors, a.updates[0].hash.String())
}
