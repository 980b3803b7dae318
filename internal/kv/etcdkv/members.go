//go:build !noetcd

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// memberTime is how long each member has to answer.
const memberTime = time.Second

// Members asks each configured endpoint for its status, all concurrently.
func (d *DB) Members(ctx context.Context) []Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.client == nil {
		return nil
	}
	return d.members(ctx)
}

func (c *cluster) members(ctx context.Context) []Member {
	ctx, cancel := context.WithTimeout(ctx, memberTime)
	defer cancel()
	all := make([]Member, len(c.config.Endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range c.config.Endpoints {
		asked.Go(func() { all[i] = c.member(ctx, endpoint) })
	}
	asked.Wait()
	return all
}

// explainEach is explain for a cluster that did not answer when it was opened: each
// endpoint has its own reason, and the error of a request has only one of them, without
// saying whose.
func (c *cluster) explainEach(ctx context.Context, err error) error {
	whole := c.explain(err)
	var own failure
	if len(c.config.Endpoints) < 2 || ctx.Err() != nil || isFinal(err) || errors.As(whole, &own) {
		return whole
	}
	var failed []string
	for _, m := range c.members(ctx) {
		if m.Err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", m.Endpoint, m.Err))
		}
	}
	if len(failed) == 0 {
		return whole
	}
	return fmt.Errorf("etcdkv: etcd does not answer: check that most of its members run, and can be reached from here: %s", strings.Join(failed, "; "))
}

// clusters returns the endpoints of the cluster that answered first, and those of others.
func (c *cluster) clusters(ctx context.Context) (own, other []string) {
	if len(c.config.Endpoints) < 2 {
		return nil, nil
	}
	for _, m := range c.members(ctx) {
		switch {
		case m.Err == nil:
			own = append(own, m.Endpoint)
		case strings.Contains(m.Err.Error(), otherCluster):
			other = append(other, m.Endpoint)
		}
	}
	return own, other
}

// unreached says why one endpoint did not answer.
func (c *cluster) unreached(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	switch advice := advise(text, c.answered()); {
	case advice != "":
		return fmt.Errorf("%s (%s)", advice, text)
	case isLate(err):
		return fmt.Errorf("it did not answer within %v", memberTime)
	}
	return errors.New(text)
}

func (c *cluster) member(ctx context.Context, endpoint string) Member {
	status, err := c.client.Status(ctx, endpoint)
	if err != nil {
		return Member{Endpoint: endpoint, Err: c.unreached(err)}
	}
	m := Member{Endpoint: endpoint, Version: status.Version, Leader: status.Leader == status.Header.MemberId, Size: status.DbSize}
	switch {
	case len(status.Errors) > 0:
		m.Err = c.unreached(errors.New(strings.Join(status.Errors, "; ")))
	case status.Leader == 0:
		m.Err = errors.New("it knows no leader")
	}
	return m
}
