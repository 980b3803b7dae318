package metrics

// StateOperations are the steps in the state that are measured.
func StateOperations() []string {
	return []string{"revoked", "accept-id", "renewable", "renew", "expect"}
}

// A Value is a number that is asked for when the metrics are read.
type Value struct {
	Name   string // without the prefix of all metrics
	Help   string
	Value  float64
	Counts bool        // it only grows
	Labels [][2]string // name and value, none of them from a stranger
}

func (v Value) labels() (names, values []string) {
	for _, l := range v.Labels {
		names, values = append(names, l[0]), append(values, l[1])
	}
	return names, values
}
