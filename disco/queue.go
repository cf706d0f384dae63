package disco

import (
	"container/heap"
	"time"
)

// A queue orders peers by when they next need attention: one timer serves all.
type queue struct{ heap peerHeap }

// set moves p to its due time; the zero time takes it out.
func (q *queue) set(p *peer, due time.Time) {
	switch {
	case due.IsZero():
		if p.slot >= 0 {
			heap.Remove(&q.heap, p.slot)
		}
	case p.slot < 0:
		p.due = due
		heap.Push(&q.heap, p)
	case !due.Equal(p.due):
		p.due = due
		heap.Fix(&q.heap, p.slot)
	}
}

// first returns the peer that is due first, nil when there is none.
func (q *queue) first() *peer {
	if len(q.heap) == 0 {
		return nil
	}
	return q.heap[0]
}

// A peerHeap is a container/heap of peers that keeps their slots.
type peerHeap []*peer

func (h *peerHeap) Len() int           { return len(*h) }
func (h *peerHeap) Less(i, j int) bool { return (*h)[i].due.Before((*h)[j].due) }
func (h *peerHeap) Swap(i, j int) {
	peers := *h
	peers[i], peers[j] = peers[j], peers[i]
	peers[i].slot, peers[j].slot = i, j
}

func (h *peerHeap) Push(x any) {
	p := x.(*peer)
	p.slot = len(*h)
	*h = append(*h, p)
}

func (h *peerHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	p.slot = -1
	return p
}
