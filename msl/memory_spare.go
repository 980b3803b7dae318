package msl

// holdFree is hold for something optional. It holds only if there is plenty of memory,
// and reports whether it did.
func (a *account) holdFree(what occupant, size int) bool {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	cost := what.cost(size)
	if cost == a.held[what] {
		return true
	}
	if a.budget == nil || !a.budget.takeFree(a, cost-a.held[what]) {
		return false
	}
	a.held[what] = cost
	return true
}

// takeFree counts n more bytes if at least as much stays free as is used then.
func (b *budget) takeFree(a *account, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.evicted || n > 0 && (b.by[a.owner]+n > b.share/2 || b.used+n > b.total/2) {
		return false
	}
	b.add(a, n)
	return true
}
