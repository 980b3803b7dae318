package metrics

// StateOperations are the measured steps in the state.
func StateOperations() []string {
	return []string{"revoked", "accept-id", "renewable", "renew", "expect"}
}

// A Value is a number collected when the metrics are read.
type Value struct {
	Name   string // without the common prefix
	Help   string
	Value  float64
	Counts bool        // it only increases
	Labels [][2]string // name and value, neither from a stranger
}

func (v Value) labels() (names, values []string) {
	for _, l := range v.Labels {
		names, values = append(names, l[0]), append(values, l[1])
	}
	return names, values
}
