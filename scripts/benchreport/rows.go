package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A row is a figure of the report: the median of the rounds, the least and the greatest of
// them, and what it is to be: ">= 0.8", "<= 9", or nothing.
type row struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Target string  `json:"target"`
}

// reached is how far a row is on its way to its target: 1 or more if it is reached.
func (r row) reached() (share float64, ok bool) {
	direction, text, _ := strings.Cut(r.Target, " ")
	target, err := strconv.ParseFloat(text, 64)
	if err != nil || r.Value <= 0 || target <= 0 {
		return 0, false
	}
	if direction == "<=" {
		return target / r.Value, true
	}
	return r.Value / target, true
}

func (r row) verdict() string {
	share, ok := r.reached()
	switch {
	case !ok:
		return ""
	case share >= 1:
		return "reached"
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// A line is a row that is still to be filled in.
type line struct {
	name   string
	figure figure
	target string
}

// rows are those of the table that were measured.
func (r results) rows() []row {
	rows := []row{}
	for _, l := range table() {
		if all := r.of(l.figure); len(all) > 0 {
			rows = append(rows, row{l.name, median(all), all[0], all[len(all)-1], l.target})
		}
	}
	return rows
}

func table() []line {
	var all []line
	for _, part := range [][]line{echoes(), handshakes(), payloads(), connections(), distant(), stores(), memory(), calls()} {
		all = append(all, part...)
	}
	return all
}

// against is a rate beside that of its floor, and their ratio.
func against(name string, f, floor figure, target string) []line {
	return []line{{name + ", per second", f, ""}, {name + ", floor", floor, ""}, {name + ", ratio", ratio(f, floor), target}}
}

// inTurns is against for a benchmark that took turns with its floor.
func inTurns(name, key, target string) []line {
	lines := against(name, the(key+"/2cpu:own/s"), the(key+"/2cpu:floor/s"), target)
	lines[2].figure = the(key + "/2cpu:of-floor")
	return lines
}

// rates are the rates of an echo with so many processors, whatever the goroutines.
func rates(bench string, processors ...int) figure {
	var keys []string
	for _, cpus := range processors {
		for _, goroutines := range []int{1, 2, 4} {
			keys = append(keys, fmt.Sprintf("stack %s/%d/%dcpu:msg/s", bench, goroutines, cpus))
		}
	}
	return best(keys...)
}

func echoes() []line {
	one, two := rates("Echo/soft", 1), rates("Echo/soft", 2)
	all := []line{
		{"echo, keys in memory, GOMAXPROCS=1, per second", one, ">= 24000"},
		{"echo, keys in memory, GOMAXPROCS=2, per second", two, ""},
		{"echo, keys in memory, scaling", ratio(two, one), ">= 1.9"},
		{"echo, garbage, bytes", the("stack Echo/soft/1/1cpu:B/op"), "<= 10000"},
		{"echo, garbage, allocations", the("stack Echo/soft/1/1cpu:allocs/op"), "<= 60"},
		{"echo with tokens and GZIP, keys in memory, per second", the("stack RichEcho/soft/1cpu:msg/s"), ">= 11000"},
		{"echo with tokens and GZIP, keys on SoftHSM2, per second", the("stack RichEcho/softhsm/1cpu:msg/s"), ""},
	}
	all = append(all, line{"echo, keys on SoftHSM2, best, per second", rates("Echo/softhsm", 1, 2), ">= 10500"})
	all = append(all, against("echo, keys on SoftHSM2", rates("Echo/softhsm", 1, 2), best("floor echo/1", "floor echo/2", "floor echo/4"), "")[1:]...)
	return append(all, inTurns("echo, keys on SoftHSM2, the server alone", "stack ServerAlone/echo", ">= 0.8")...)
}

func handshakes() []line {
	var all []line
	for _, h := range []struct{ scheme, target string }{{"PSK", ">= 0.92"}, {"RSA", ">= 0.9"}} {
		for _, place := range []struct{ key, name string }{{"soft", "in memory"}, {"softhsm", "on SoftHSM2"}} {
			all = append(all, line{"handshake " + h.scheme + ", keys " + place.name + ", per second",
				the("stack Handshake/" + place.key + "/" + h.scheme + "/2cpu:msg/s"), ""})
		}
		all = append(all, inTurns("handshake "+h.scheme+", the server alone", "stack ServerAlone/"+h.scheme, h.target)...)
	}
	return all
}

func payloads() []line {
	var all []line
	for _, place := range []struct{ key, name string }{{"soft", "in memory"}, {"softhsm", "on SoftHSM2"}} {
		key := "stack Payload/" + place.key + "/1MiB/"
		all = append(all, against("1 MiB, keys "+place.name, the(key+"up/2cpu:msg/s"), the(key+"floor/2cpu:msg/s"), ">= 0.75")...)
	}
	return all
}

func connections() []line {
	var all []line
	for _, place := range []struct{ key, name string }{{"soft", "in memory"}, {"softhsm", "on SoftHSM2"}} {
		for _, n := range []int{1, 2, 4, 64} {
			target := ""
			if n == 64 && place.key == "soft" {
				target = ">= 26000"
			}
			all = append(all, line{fmt.Sprintf("HTTP, keys %s, kept connections: %d, per second", place.name, n),
				the(fmt.Sprintf("stack KeptHTTP/%s/%d/2cpu:msg/s", place.key, n)), target})
		}
	}
	all = append(all, line{"HTTP, keys in memory, kept connections: 64, processor µs", the("stack KeptHTTP/soft/64/2cpu:cpu-us/op"), ""})
	return append(all, line{"HTTP on SoftHSM2, kept connections: 64, part of the server alone",
		ratio(the("stack KeptHTTP/softhsm/64/2cpu:msg/s"), the("stack Echo/softhsm/1/2cpu:server/s")), ">= 0.85"})
}

func distant() []line {
	return []line{
		{"module with 1 ms a call, one message, ms", the("stack DistantDevice/2cpu:ms/message"), "<= 9"},
		{"module with 1 ms a call, one message, floor, ms", the("stack DistantDevice/2cpu:floor-ms/message"), ""},
		{"module with 1 ms a call, 64 clients, per second", the("stack DistantDevice/2cpu:msg/s"), ""},
		{"module with 1 ms a call, 64 clients, processor µs a message", the("stack DistantDevice/2cpu:cpu-us/message"), ""},
		{"module with 1 ms a call, 64 clients, share of 32 sessions", the("stack DistantDevice/2cpu:of-sessions"), ">= 0.85"},
		{"module with 1 ms a call, share of 32 sessions, floor", the("stack DistantDevice/2cpu:floor-of-sessions"), ""},
	}
}

func stores() []line {
	var all []line
	for _, op := range []struct{ name, sequence string }{
		{"HMAC 1 KiB", "hmac"}, {"AES-CBC encrypt 1 KiB", "encrypt"}, {"AES-CBC decrypt 1 KiB", "decrypt"},
		{"RSA-2048 sign", "sign"}, {"generate and destroy", "generate"}, {"unseal and destroy", "unseal"},
	} {
		all = append(all, inTurns("hsm: "+op.name, "hsm Floor/"+op.sequence, ">= 0.85")...)
	}
	return all
}

func memory() []line {
	return []line{
		{"idle session, keys in memory, bytes", the("stack IdleSession/soft/1cpu:B/session"), ""},
		{"idle session, keys on SoftHSM2, bytes", the("stack IdleSession/softhsm/1cpu:B/session"), "<= 1536"},
	}
}

func calls() []line {
	return []line{
		{"calls: start", the("calls start"), "<= 120"},
		{"calls: recovery, and the first message after it", the("calls recovery,_and_the_first_message_after_it"), "<= 80"},
		{"calls: message in a session", the("calls message_in_a_session"), "<= 16"},
		{"calls: message in a session that was forgotten", the("calls message_in_a_session_that_was_forgotten"), ""},
		{"calls: first message of a device with PSK", the("calls first_message_of_a_device"), ""},
		{"calls: first messages of a device with RSA", the("calls first_messages_of_a_device_with_RSA"), ""},
	}
}
