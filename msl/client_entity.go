package msl

import (
	"context"
	"fmt"
)

// A persona is how the client proves itself in an attempt.
type persona struct {
	client *Client
	entity LocalEntity
	turned int // how often the client had switched entities
}

// become switches to the client's current entity. The client is locked.
func (p *persona) become() {
	p.entity, p.turned = p.client.Local, p.client.turned
	if p.client.other != nil {
		p.entity = p.client.other
	}
}

// ask asks the application how this side should prove itself after an authenticated
// refusal.
func (p *persona) ask(ctx context.Context, reason ResponseCode) (again bool, err error) {
	c := p.client
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return false, fmt.Errorf("msl: wait for the entity that another message asks for: %w", ctx.Err())
	}
	if p.turnedMeanwhile() {
		return true, nil
	}
	entity, err := c.EntityAuth(ctx, p.entity, reason)
	if entity == nil || err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = entity
	c.turned++
	p.become()
	return true, nil
}

// turnedMeanwhile switches to the entity that the client adopted after a refusal of
// another message, if any.
func (p *persona) turnedMeanwhile() bool {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	before := p.turned
	p.become()
	return p.turned != before
}
