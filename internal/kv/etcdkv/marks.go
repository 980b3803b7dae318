//go:build !noetcd

package etcdkv

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Tables that belong to etcdkv.
const (
	marked   = ".marks"   // by process and number
	removals = ".removed" // by table
	news     = "=news"    // one record, which changes with any record that followers copy
)

// A mark is a record in etcd that only one Update at a time uses. Each transaction
// compares its revision and changes it, so it shows which transaction was the last.
type mark struct {
	key      string
	revision int64
	value    string // of the last attempt
}

// marks are those that no Update is using.
type marks struct {
	at   *cluster
	mu   sync.Mutex
	own  string // names this process
	made int
	free []*mark
}

func (m *mark) compare() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(m.key), "=", m.revision)
}

// markValue returns a value that occurs only once, with the time.
func markValue() string { return strconv.FormatInt(time.Now().Unix(), 10) + " " + rand.Text() }

// take returns a mark for exclusive use. A new one is created first, so that a missing
// mark always means that it was removed.
func (all *marks) take(ctx context.Context) (*mark, error) {
	if m := all.used(); m != nil {
		return m, nil
	}
	m := &mark{key: all.at.key(marked, all.name())}
	before := all.at.newest.Load()
	err := all.at.ask(ctx, func(ctx context.Context) error {
		answer, err := all.at.client.Txn(ctx).If(m.compare()).Then(clientv3.OpPut(m.key, markValue())).Else(clientv3.OpGet(m.key)).Commit()
		if err != nil {
			return err
		}
		m.revision = answer.Header.Revision
		if !answer.Succeeded { // an unanswered attempt made it
			m.revision = answer.Responses[0].GetResponseRange().Kvs[0].ModRevision
		}
		return all.at.see(before, answer.Header.Revision)
	})
	return m, err
}

// used returns a mark that was used before, or nil.
func (all *marks) used() *mark {
	all.mu.Lock()
	defer all.mu.Unlock()
	if len(all.free) == 0 {
		return nil
	}
	last := all.free[len(all.free)-1]
	all.free = all.free[:len(all.free)-1]
	return last
}

func (all *marks) put(back *mark) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.free = append(all.free, back)
}

func (all *marks) name() string {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.made++
	return fmt.Sprint(all.own, "/", all.made)
}

// newest reads the mark of this process that changed last.
func (all *marks) newest() clientv3.Op {
	options := append(clientv3.WithLastRev(), clientv3.WithKeysOnly())
	return clientv3.OpGet(all.at.key(marked, all.own+"/"), options...)
}

// removeOwn removes the marks of this process, if etcd answers. A transaction still under
// way then fails.
func (all *marks) removeOwn() {
	if all.made == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), all.at.config.Timeout/6)
	defer cancel()
	_, _ = all.at.client.Delete(ctx, all.at.key(marked, all.own+"/"), clientv3.WithPrefix())
}

func markTime(value []byte) (time.Time, bool) {
	text, _, _ := strings.Cut(string(value), " ")
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0), err == nil
}

// removeOld removes some marks of processes that ended without removing them. The clock here may
// be wrong, so the mark that was used last must be as much younger, too. Those used earlier go
// first: a process whose newest mark is gone and another is not would believe that etcd went back.
func (all *marks) removeOld(ctx context.Context, now time.Time) error {
	const unused = 24 * time.Hour
	return all.at.ask(ctx, func(ctx context.Context) error {
		last, err := all.at.client.Get(ctx, all.at.key(marked, ""), clientv3.WithLastRev()...)
		if err != nil || len(last.Kvs) == 0 {
			return err
		}
		if used, ok := markTime(last.Kvs[0].Value); ok && used.Before(now) {
			now = used
		}
		found, err := all.at.client.Get(ctx, all.at.key(marked, ""), append(clientv3.WithFirstRev(), clientv3.WithLimit(maxOperations))...)
		if err != nil {
			return err
		}
		var compares []clientv3.Cmp
		var operations []clientv3.Op
		for _, record := range found.Kvs {
			if used, ok := markTime(record.Value); ok && now.Sub(used) > unused {
				compares = append(compares, clientv3.Compare(clientv3.ModRevision(string(record.Key)), "=", record.ModRevision))
				operations = append(operations, clientv3.OpDelete(string(record.Key)))
			}
		}
		if len(operations) == 0 {
			return nil
		}
		_, err = all.at.client.Txn(ctx).If(compares...).Then(operations...).Commit()
		return err
	})
}
