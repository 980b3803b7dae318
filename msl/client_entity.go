package msl

import "context"

// begin begins an attempt: as the entity that the client is now, and with what it is
// about to hold.
func (a *attempt) begin() {
	c := a.client
	c.mu.Lock()
	defer c.mu.Unlock()
	a.become()
	a.forgotten, a.left = c.forgotten, c.left[a.req.User]
}

// become turns to the entity that the client is now.
func (a *attempt) become() {
	a.entity, a.turned = a.client.Local, a.client.turned
	if a.client.other != nil {
		a.entity = a.client.other
	}
}

// askEntity asks the application how to prove this side after a refusal. One that
// nobody authenticated asks for nothing: it could be anyone's who wants to see this side
// under another name.
func (a *attempt) askEntity(ctx context.Context, refusal *PeerError, again bool) (bool, error) {
	c := a.client
	if c.EntityAuth == nil || a.proven != refusal {
		return again, nil
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	if a.turnedMeanwhile() {
		return true, nil
	}
	entity, err := c.EntityAuth(ctx, a.entity, refusal.Response)
	if entity == nil || err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = entity
	c.turned++
	a.become()
	return true, nil
}

// turnedMeanwhile turns to the entity that the client became after a refusal of another
// message, if it did.
func (a *attempt) turnedMeanwhile() bool {
	a.client.mu.Lock()
	defer a.client.mu.Unlock()
	before := a.turned
	a.become()
	return a.turned != before
}
