//! What the programs share: environment, records on stdin, output forms, exit status.
