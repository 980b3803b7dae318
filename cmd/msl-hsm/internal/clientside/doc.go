// Package clientside builds an MSL client from the configuration.
//
// Which function do I want? [Open] for a client that sends, [OpenAgent] for one shared by
// the programs of this machine, [NewcomerClient] for a device that is about to enroll.
package clientside
