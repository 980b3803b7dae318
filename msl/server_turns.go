package msl

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
)

// A payer is charged for what a message costs: the registered entity, which may stand
// for a family of identities, or else the identity itself.
type payer struct {
	name       string
	registered bool
}

func payerOf(entity *Entity, identity string) payer {
	if entity == nil || entity.Identity == "" {
		return payer{name: CanonicalName(identity)}
	}
	return payer{CanonicalName(entity.Identity), true}
}

// payer returns who is charged for a message of identity.
func (s *Server) payer(ctx context.Context, identity string) payer {
	entity, err := s.entity(ctx, identity)
	if err != nil {
		entity = nil
	}
	return payerOf(entity, identity)
}

// turns let a few checks run concurrently while the others wait for their turn, which
// rotates among the payers: a payer with many waiting checks delays only its own. If
// there is more than one place, a payer leaves one of them to others.
type turns struct {
	places int
	seed   maphash.Seed

	mu      sync.Mutex
	running map[string]int
	waiting map[string][]chan struct{} // the first of each is next; closed when it may run
	round   []string                   // those with waiting checks; the first is next
	taken   int
}

const (
	// maxWaiting bounds a payer's waiting checks.
	maxWaiting = 64
	// strangers is how many keys all unregistered identities share.
	strangers = 64
)

var errWaiting = errors.New("too many messages of this entity wait for such a check already")

func newTurns(places int) *turns {
	return &turns{places: places, seed: maphash.MakeSeed(), running: map[string]int{}, waiting: map[string][]chan struct{}{}}
}

// who returns the key under which a payer's checks wait. Names of unregistered entities
// cost nothing, so they share a few keys.
func (t *turns) who(p payer) string {
	if p.registered {
		return p.name
	}
	return fmt.Sprintf("\x00%d", maphash.String(t.seed, p.name)%strangers)
}

// take waits for a turn. The caller calls leave after the check.
func (t *turns) take(ctx context.Context, p payer) (leave func(), err error) {
	who, granted := t.who(p), make(chan struct{})
	if err := t.wait(who, granted); err != nil {
		return nil, err
	}
	select {
	case <-granted:
		return func() { t.leave(who) }, nil
	case <-ctx.Done():
		t.giveUp(who, granted)
		return nil, ctx.Err()
	}
}

func (t *turns) wait(who string, granted chan struct{}) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting[who]) >= maxWaiting {
		return errWaiting
	}
	if len(t.waiting[who]) == 0 {
		t.round = append(t.round, who)
	}
	t.waiting[who] = append(t.waiting[who], granted)
	t.grant()
	return nil
}

// grant lets waiting checks run if there is room.
func (t *turns) grant() {
	for t.taken < t.places {
		at := slices.IndexFunc(t.round, func(who string) bool { return t.running[who] < max(1, t.places-1) })
		if at < 0 {
			return
		}
		who := t.round[at]
		t.round = append(slices.Delete(t.round, at, at+1), who)
		close(t.waiting[who][0])
		t.drop(who, 0)
		t.running[who]++
		t.taken++
	}
}

func (t *turns) drop(who string, at int) {
	if t.waiting[who] = slices.Delete(t.waiting[who], at, at+1); len(t.waiting[who]) > 0 {
		return
	}
	delete(t.waiting, who)
	t.round = slices.DeleteFunc(t.round, func(other string) bool { return other == who })
}

func (t *turns) leave(who string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.running[who]--; t.running[who] == 0 {
		delete(t.running, who)
	}
	t.grant()
}

// giveUp ends the wait of a check that may have been granted in the meantime.
func (t *turns) giveUp(who string, granted chan struct{}) {
	t.mu.Lock()
	at := slices.Index(t.waiting[who], granted)
	if at >= 0 {
		t.drop(who, at)
	}
	t.mu.Unlock()
	if at < 0 {
		t.leave(who)
	}
}
