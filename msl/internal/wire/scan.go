package wire

// scanner finds the end of an object that arrives in pieces. It knows only braces and
// strings, and leaves everything else to the parser.
type scanner struct {
	pos    int // bytes scanned
	depth  int
	quoted bool // inside a string
}

// run continues with b, which holds the object from its first byte on. If done is true,
// pos is the size of the object.
func (s *scanner) run(b []byte) (done bool, err error) {
	for s.pos < len(b) {
		if s.quoted {
			if more, err := s.inString(b); err != nil || more {
				return false, err
			}
			continue
		}
		c := b[s.pos]
		s.pos++
		switch c {
		case '"':
			s.quoted = true
		case '{':
			s.depth++
		case '}':
			s.depth--
			if s.depth == 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// inString moves to the end of the string. It needs more input if the end is not in b,
// or if b ends between a reverse solidus and the byte that follows.
func (s *scanner) inString(b []byte) (more bool, err error) {
	s.pos += plainLen(b[s.pos:])
	if s.pos == len(b) {
		return true, nil
	}
	switch b[s.pos] {
	case '"':
		s.pos++
		s.quoted = false
	case '\\':
		if s.pos+1 == len(b) {
			return true, nil
		}
		s.pos += 2
	default:
		return false, syntaxError(s.pos, "control character in string")
	}
	return false, nil
}
