// Package metrics counts and measures what a server does, for Prometheus.
//
// The library tells what happens by function values in its configurations, and does not
// know this package. [Set] has those functions: [Set.Message] for msl.Server.Report,
// [Set.Call] for the key store, [Set.Upstream] for the service behind a gateway, and
// [Set.State] around the state. Their series are made beforehand, so that a message
// costs no look-up by name. What a server only holds, such as sessions, is asked for
// when somebody reads the metrics ([Set.Watch]).
//
// Names of senders, users and other strangers are never values of labels: those come
// from the configuration and from lists of this program.
//
// A program that was built with the tag nometrics has none of it.
package metrics
