// Package metrics counts and measures what a server does, for Prometheus.
//
// The library reports events through function values in its configurations, and does not
// know this package. [Set] has those functions: [Set.Message] for msl.Server.Report,
// [Set.Call] for the key store, [Set.Upstream] for the service behind a gateway, and
// [Set.State] around the state. Their series are created in advance, so that a message
// needs no look-up by name. Quantities that a server holds, such as sessions, are
// collected when the metrics are read ([Set.Watch]).
//
// Label values never contain names of senders, users or other strangers: they come from
// the configuration and from lists in this program.
//
// A program built with the tag nometrics has no metrics.
package metrics
