package isolated

// PID returns the process ID of the child, or 0.
func (s *Store) PID() int {
	p, _, _ := s.look()
	if p == nil {
		return 0
	}
	return p.command.Process.Pid
}

// UnderWay returns how many calls wait for the child, each on a lane.
func (s *Store) UnderWay() (calls int) {
	p, _, _ := s.look()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lanes {
		if l.due.Load() > 0 {
			calls++
		}
	}
	return calls
}
