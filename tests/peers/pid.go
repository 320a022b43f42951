package peers

// PID returns the process id of a running server.
func (s *Server) PID() int { return s.cmd.Process.Pid }
