// Package clientside puts an MSL client together from the configuration.
//
// Which function do I want? [Open] for a client that sends, [OpenAgent] for one that
// programs of this machine share, [NewcomerClient] for a device that wants to enroll.
package clientside
