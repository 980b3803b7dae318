//go:build !noetcd

package etcdkv

import (
	"sync/atomic"

	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A lossyKV loses the next transaction, or only its answer.
type lossyKV struct {
	clientv3.KV
	sent bool
	lose atomic.Bool
}

func (l *lossyKV) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{l.KV.Txn(ctx), l} }

type lossyTxn struct {
	clientv3.Txn
	kv *lossyKV
}

func (l *lossyTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	l.Txn = l.Txn.If(cs...)
	return l
}

func (l *lossyTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	l.Txn = l.Txn.Then(ops...)
	return l
}

func (l *lossyTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	l.Txn = l.Txn.Else(ops...)
	return l
}

func (l *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	if !l.kv.lose.Swap(false) {
		return l.Txn.Commit()
	}
	if l.kv.sent {
		if _, err := l.Txn.Commit(); err != nil {
			return nil, err
		}
	}
	return nil, status.Error(codes.Unavailable, "lost")
}
