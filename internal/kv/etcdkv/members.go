//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// memberTime is how long each member has to answer.
const memberTime = time.Second

// Members asks each endpoint of the configuration how it is, all at the same time.
func (d *DB) Members(ctx context.Context) []Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, memberTime)
	defer cancel()
	all := make([]Member, len(d.config.Endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range d.config.Endpoints {
		asked.Go(func() { all[i] = d.member(ctx, endpoint) })
	}
	asked.Wait()
	return all
}

func (c *cluster) member(ctx context.Context, endpoint string) Member {
	status, err := c.client.Status(ctx, endpoint)
	if err != nil {
		return Member{Endpoint: endpoint, Err: fail(err, "%v", err)}
	}
	m := Member{Endpoint: endpoint, Version: status.Version, Leader: status.Leader == status.Header.MemberId, Size: status.DbSize}
	switch {
	case len(status.Errors) > 0:
		m.Err = errors.New(strings.Join(status.Errors, "; "))
	case status.Leader == 0:
		m.Err = errors.New("it knows no leader")
	}
	return m
}
