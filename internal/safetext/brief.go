package safetext

// longestError is how many bytes of an error are shown: net/http quotes a line from a
// service or server that does not speak HTTP, and crypto/tls the protocols that a client
// offers, whatever their length, and errors go to logs and traces.
const longestError = 1 << 10

// Brief returns an error whose text is only the beginning of err, escaped as by [String],
// and which wraps err. Nil stays nil.
func Brief(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	said := escape(First(text, longestError), "\n\t")
	if said == text {
		return err
	}
	return &briefError{said, err}
}

type briefError struct {
	text string
	err  error
}

// Error returns the beginning of the text.
func (e *briefError) Error() string { return e.text }

// Unwrap returns the whole error.
func (e *briefError) Unwrap() error { return e.err }
