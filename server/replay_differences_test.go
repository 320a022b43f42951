package server

// intended are the differences between this server's answers and those of
// ZEO's own that are meant to be.
var intended = []difference{}
