//go:build !noetcd

package etcdkv

import (
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A history is what a process knows of its cluster. An answer that does not belong to it
// comes from another cluster, or from one that lost changes, such as a restored backup.
type history struct {
	id     atomic.Uint64 // of the cluster, or 0 before the first answer
	newest atomic.Int64  // the newest revision of an answer
	own    atomic.Int64  // the revision of the newest change under a mark of this process
	back   atomic.Pointer[failure]
}

// otherCluster is in errors after an answer of another cluster.
const otherCluster = "another etcd cluster answers"

var errOther = status.Error(codes.Unavailable, otherCluster)

// recognize refuses the answer of another cluster than the one that answered first. Another
// endpoint may be of the right one, so the request can be repeated.
func (h *history) recognize(answer *etcdserverpb.ResponseHeader) error {
	id := answer.GetClusterId()
	if id == 0 || h.id.CompareAndSwap(0, id) || id == h.id.Load() {
		return nil
	}
	return errOther
}

// see checks that a revision is not older than before, the newest one when the request was
// made. No answer is believed after one that was older: with enough changes, a cluster that
// went back looks as new as it was.
func (h *history) see(before, revision int64) error {
	if back := h.back.Load(); back != nil {
		return *back
	}
	if revision < before {
		return h.wentBack(before, revision)
	}
	raise(&h.newest, revision)
	return nil
}

// seeOwn checks the newest revision of the marks of this process, or 0 if there are none:
// unused ones are removed after a day. before is the newest when the request was made. A
// restored backup shows by it even after so many changes that its revision does not.
func (h *history) seeOwn(before, revision int64) error {
	if revision > 0 && revision < before {
		return h.wentBack(before, revision)
	}
	return nil
}

// headerOf returns the header of an answer, or nil.
func headerOf(answer any) *etcdserverpb.ResponseHeader {
	if headed, ok := answer.(interface {
		GetHeader() *etcdserverpb.ResponseHeader
	}); ok {
		return headed.GetHeader()
	}
	return nil
}

func (h *history) wentBack(before, revision int64) error {
	h.back.CompareAndSwap(nil, &failure{fmt.Sprintf("the etcd cluster went back from revision %d to %d, as if a backup had been restored: make all older tokens invalid, then restart the servers", before, revision), kv.ErrDamaged})
	return *h.back.Load()
}

// raise makes a number at least n.
func raise(number *atomic.Int64, n int64) {
	for old := number.Load(); old < n && !number.CompareAndSwap(old, n); {
		old = number.Load()
	}
}
