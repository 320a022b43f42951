// Package config reads the configuration file of a ZEO server, zeo.conf, as
// runzeo does: the syntax of ZConfig with the sections and keys of ZEO and
// ZODB.
//
//	<zeo>
//	  address localhost:8100
//	</zeo>
//	<filestorage 1>
//	  path /srv/zeo/Data.fs
//	  blob-dir /srv/zeo/blobs
//	</filestorage>
//
// [Load] and [Parse] turn a file into a [Config]: plain values, defaults
// filled in, storages in the order of the file. Nothing is opened and nothing
// but the file and those it includes is read; [Config.Check] looks at the
// file system afterwards.
//
// A key or section that the server cannot honour is an [Error] that names its
// file and line, what is accepted there, and often what was meant; all errors
// of a file are reported together. It is a [Warning] only where leaving it out
// changes neither data nor what clients see. Which is which, and why, stands
// beside each key in zeo.go, storages.go and eventlog.go.
//
// # Differences from runzeo
//
// Python code cannot be named by the configuration: packer and
// password-function are errors, formatter is a warning. %import is accepted
// with a warning, because a section type that comes from a Python package
// is either known here or an error where it is used. <clientstorage> may be
// used without import. Some mistakes that runzeo notices when it opens a
// storage, or never, are errors here: a demostorage with two bases, two
// storages in one file, negative sizes, a transaction-timeout of 0. So are a
// demostorage with its changes at another server, and a blobstorage around
// something that cannot be told where its blobs go, which runzeo serves. Relative
// paths mean, as in runzeo, relative to the working directory of the process;
// only those of %include are relative to the file that includes.
package config
