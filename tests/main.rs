//! End-to-end tests of the programs, a file per tool and topic.
