package isolated

// PID returns the process ID of the child, or 0.
func (s *Store) PID() int {
	p, _, _ := s.look()
	if p == nil {
		return 0
	}
	return p.command.Process.Pid
}
