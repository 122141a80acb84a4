"""What an operator sees: logs, later metrics, traces and audit."""
