"""Valkey and Redis without Salt: the grammars of ACL rules and of the configuration file, connections and sessions."""
